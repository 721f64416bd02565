#!/usr/bin/env bash
# Brings what the demo and the tests need, each thing once: `setup.sh THING...`, each of
#   base kcat jars python librdkafka rdkafka-perf node go deny valgrind perf inferno charts xfs faketime
# Debian's packages are installed only where a command is missing, and named first. All the rest goes into the build folder
# ($FLOWSTONE_BUILD, or target/ in the clone), so deleting that folder undoes it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
build=${FLOWSTONE_BUILD:-$repo/target}
mkdir -p "$build/clients"
build=$(cd "$build" && pwd)
clients=$build/clients

say() { echo "setup: $*"; }

# What a stamp covers is in its name: a changed list or version makes a new name, so the step runs again.
done_before() { [ -e "$clients/.$1" ]; }
mark_done() { touch "$clients/.$1"; }
sum_of() { cat "$@" | sha256sum | cut -c1-12; }

packages=()
want() { # PACKAGE WHY TEST...: the package is needed unless the test passes
  local package=$1 why=$2; shift 2
  "$@" >/dev/null 2>&1 && return
  packages+=("$package")
  say "needs Debian's package $package ($why)"
}

install_packages() {
  [ ${#packages[@]} -eq 0 ] && return
  local root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  if [ ${#root[@]} -gt 0 ] && ! command -v sudo >/dev/null; then
    say "not root and no sudo; run as root: apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
  fi
  say "installing ${packages[*]}"
  # Another package manager may hold the lock for a while, as unattended upgrades do on a new machine.
  local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update >"$clients/apt.log" 2>&1 || { tail -n 20 "$clients/apt.log" >&2; exit 1; }
  "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >>"$clients/apt.log" 2>&1 || { tail -n 20 "$clients/apt.log" >&2; exit 1; }
  packages=()
}

# All packages in one go, before anything that needs one.
declare_packages() {
  local thing
  for thing in "$@"; do
    case $thing in
      base)
        want build-essential "a linker and a C compiler for the crates that build C" cc --version
        want pkg-config "finds hwloc" pkg-config --version
        want libhwloc-dev "the machine's topology" pkg-config --exists hwloc
        want python3 "runs the test steps and adds up their totals" python3 --version ;;
      kcat) want kcat "an unchanged client for the demo and the tests" kcat -V ;;
      jars)
        want openjdk-17-jdk-headless "Kafka's own tools" javac -version
        want maven "fetches Kafka by name from Maven Central" mvn --version ;;
      python) want python3-venv "Python clients, in a virtual environment" python3 -c 'import venv, ensurepip' ;;
      librdkafka | rdkafka-perf)
        want build-essential "builds librdkafka's test suite" c++ --version
        want zlib1g-dev "gzip in librdkafka's test suite" test -e /usr/include/zlib.h
        want rapidjson-dev "librdkafka's tests of its statistics" test -e /usr/include/rapidjson/rapidjson.h ;;
      valgrind) want valgrind "counts instructions, which a loaded machine does not change" valgrind --version ;;
      perf) want linux-perf "profiles the broker" perf --version ;;
      xfs) want xfsprogs "makes the XFS whose power is cut" mkfs.xfs -V ;;
      faketime) want libfaketime "moves the clock of the daemon" test -e /usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1 ;;
      charts) want python3-venv "draws charts, in a virtual environment" python3 -c 'import venv, ensurepip' ;;
      node | go | deny | inferno) ;;
      *) echo "setup.sh: unknown thing '$thing'" >&2; exit 2 ;;
    esac
  done
}

bring_jars() {
  local stamp=jars-$(sum_of "$here"/kafka/*)
  done_before "$stamp" && return
  say "Apache Kafka's jars from Maven Central into $clients/kafka"
  rm -rf "$clients/kafka"
  mkdir -p "$clients/kafka/runner"
  mvn -q -B -f "$here/kafka/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$clients/kafka/libs" >"$clients/maven.log" 2>&1 || { tail -n 20 "$clients/maven.log" >&2; exit 1; }
  javac -nowarn -proc:none -d "$clients/kafka/runner" -cp "$clients/kafka/libs/*" "$here"/kafka/*.java
  mark_done "$stamp"
}

bring_python() {
  local stamp=python-$(sum_of "$here/requirements.txt" "$here/requirements-old.txt")
  done_before "$stamp" && return
  say "Python clients into $clients/venv"
  rm -rf "$clients/venv" "$clients/old-clients"
  python3 -m venv "$clients/venv"
  local pip=("$clients/venv/bin/pip" -q --disable-pip-version-check install)
  "${pip[@]}" -r "$here/requirements.txt"
  # An older kafka-python beside the newer one: its own folder, which only its tests put on the path.
  "${pip[@]}" --no-deps --target "$clients/old-clients" -r "$here/requirements-old.txt"
  mark_done "$stamp"
}

bring_librdkafka() {
  local stamp=librdkafka-$(sum_of "$here/librdkafka/Cargo.toml" "$here/librdkafka/Cargo.lock")
  done_before "$stamp" && return
  say "librdkafka with its test suite, from its crate, into $clients/librdkafka (a minute or two)"
  local manifest
  manifest=$(cargo metadata -q --locked --format-version 1 --manifest-path "$here/librdkafka/Cargo.toml" |
    python3 -c 'import json,sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "rdkafka-sys"))')
  rm -rf "$clients/librdkafka"
  cp -r "$(dirname "$manifest")/librdkafka" "$clients/librdkafka"
  (
    cd "$clients/librdkafka"
    ./configure --disable-ssl --disable-gssapi --disable-curl --disable-zstd --disable-lz4-ext
    make -j"$(nproc)" libs
    make -C tests -j"$(nproc)" build
  ) >"$clients/librdkafka.log" 2>&1 || { tail -n 20 "$clients/librdkafka.log" >&2; exit 1; }
  mark_done "$stamp"
}

bring_rdkafka-perf() {
  bring_librdkafka
  [ -x "$clients/librdkafka/examples/rdkafka_performance" ] && return
  make -C "$clients/librdkafka/examples" rdkafka_performance >>"$clients/librdkafka.log" 2>&1 || { tail -n 20 "$clients/librdkafka.log" >&2; exit 1; }
}

bring_charts() {
  local stamp=charts-$(sum_of "$repo/benches/compare/requirements.txt")
  done_before "$stamp" && return
  say "matplotlib into $clients/charts"
  rm -rf "$clients/charts"
  python3 -m venv "$clients/charts"
  "$clients/charts/bin/pip" -q --disable-pip-version-check install -r "$repo/benches/compare/requirements.txt"
  mark_done "$stamp"
}

bring_node() {
  command -v npm >/dev/null || { say "no npm on this machine: the Node clients are left out"; return; }
  local stamp=node-$(sum_of "$here/node/package.json" "$here/node/package-lock.json")
  done_before "$stamp" && return
  say "Node clients into $clients/node"
  rm -rf "$clients/node"
  mkdir -p "$clients/node"
  cp "$here/node/package.json" "$here/node/package-lock.json" "$clients/node/"
  (cd "$clients/node" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  mark_done "$stamp"
}

bring_go() {
  command -v go >/dev/null || { say "no go on this machine: the Go clients are left out"; return; }
  local stamp=go-$(sum_of "$here"/go/*)
  done_before "$stamp" && return
  # No download of another toolchain: a Go that is too old leaves these clients out.
  export GOTOOLCHAIN=local
  (cd "$here/go" && go list -m >/dev/null 2>&1) || { say "$(go version) is older than go.mod asks: the Go clients are left out"; return; }
  say "Go clients into $clients/go"
  mkdir -p "$clients/go"
  (cd "$here/go" && go test -c -o "$clients/go/smoke.test" .)
  mark_done "$stamp"
}

bring_deny() {
  [ -x "$build/tools/bin/cargo-deny" ] || command -v cargo-deny >/dev/null && return
  say "cargo-deny into $build/tools (some minutes, once)"
  cargo install -q --locked --root "$build/tools" cargo-deny
}

bring_inferno() {
  [ -x "$build/tools/bin/inferno-flamegraph" ] && return
  say "inferno, which draws flame graphs, into $build/tools (a minute or two, once)"
  cargo install -q --locked --root "$build/tools" inferno
}

declare_packages "$@"
install_packages
for thing in "$@"; do
  case $thing in base | kcat | valgrind | perf | xfs | faketime) ;; *) "bring_$thing" ;; esac
done
