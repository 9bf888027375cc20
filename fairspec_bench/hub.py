"""Ground floor: can the Hugging Face Hub be reached? Answered in 1.5 s, where its own client retries for a minute.

Knows one address and one timeout. Knows nothing of what will be fetched.
"""

from __future__ import annotations

import os
import ssl
import threading
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 1.5


def offline() -> bool:
    """Whether the user asked for no network (`HF_HUB_OFFLINE`): only what is cached may be used."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def reachable(timeout: float = TIMEOUT_SECONDS) -> bool:
    """Whether the Hub (`HF_ENDPOINT`, proxies honoured) answers within `timeout` seconds; never when `offline()`."""
    if offline():
        return False
    answered = threading.Event()

    def knock() -> None:
        if _answers(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout):
            answered.set()

    # A name look-up obeys no timeout, hence a thread that can be left behind.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()


def _answers(address: str, timeout: float) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # A certificate that only the client's own settings accept is still an answer.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):
        return False
    return True
