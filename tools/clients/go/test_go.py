"""franz-go and sarama against the broker: go/smoke_test.go, a scenario at a time."""

import os
import re
import shutil
import subprocess

import pytest

from harness.places import CLIENTS, HERE

BINARY = CLIENTS / "go" / "smoke.test"
SCENARIOS = re.findall(r"^func Test(\w+)", (HERE / "go" / "smoke_test.go").read_text(), re.M)


@pytest.mark.whole
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_go(broker, name, scenario):
    if not shutil.which("go"):
        pytest.skip("no go on this machine")
    if not BINARY.exists():
        pytest.skip("the Go tests are not built: tools/clients/setup.sh go")
    environment = os.environ | {"BOOTSTRAP": broker.bootstrap, "NAME": name}
    command = [str(BINARY), "-test.v", "-test.run", f"^Test{scenario}$", "-test.timeout", "150s"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0 and f"--- PASS: Test{scenario}" in done.stdout, done.stdout[-4000:] + done.stderr[-1000:]
