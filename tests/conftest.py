"""What every test may rely on: the settings of whoever runs the tests do not reach them."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("overnight", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("overnight")

# In the background a shell has interrupts ignored, and what is started from here would ignore them, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own keys and settings must neither help nor hurt a test."""
    for name in os.environ:
        if name.startswith(("OVERNIGHT_", "OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)
