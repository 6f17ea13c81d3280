"""The promises of the ports as functions, for whoever writes an adapter. Each takes an empty store of its own.

@pytest.mark.parametrize("promise", RESULT_LOG, ids=lambda promise: promise.__name__)
async def test_my_log_keeps_its_promise(promise, my_logs):
await promise(my_logs)
"""

from overnight.testing.contracts.batches import BATCHES
from overnight.testing.contracts.blobs import BLOBS
from overnight.testing.contracts.expect import Broken
from overnight.testing.contracts.files import FILES
from overnight.testing.contracts.results import RESULT_LOG

__all__ = ["BATCHES", "BLOBS", "FILES", "RESULT_LOG", "Broken"]
