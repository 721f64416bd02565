"""kafkajs against the broker: node/smoke.test.js, a scenario at a time."""

import os
import re
import shutil
import subprocess

import pytest

from harness.places import CLIENTS, HERE

MODULES = CLIENTS / "node" / "node_modules"


@pytest.mark.whole
@pytest.mark.parametrize("scenario", ["round-trip", "gzip-and-idempotent", "group-goes-on", "admin"])
def test_kafkajs(broker, name, scenario):
    if not shutil.which("node"):
        pytest.skip("no node on this machine")
    if not MODULES.exists():
        pytest.skip("kafkajs is not there: tools/clients/setup.sh node")
    # Beside node_modules, where Node looks for what the script requires.
    script = shutil.copy(HERE / "node" / "smoke.test.js", MODULES.parent)
    environment = os.environ | {"BOOTSTRAP": broker.bootstrap, "NAME": name}
    command = ["node", "--test", "--test-reporter=tap", f"--test-name-pattern=^{scenario}$", script]
    done = subprocess.run(command, cwd=MODULES.parent, env=environment, capture_output=True, text=True, timeout=120, check=False)
    ran = re.search(rf"^ok \d+ - {scenario}$", done.stdout, re.M)
    assert done.returncode == 0 and ran, done.stdout[-4000:] + done.stderr[-1000:]
