"""One CUDA graph is captured at a time in a process.

Capturing begins by waiting for the whole device, which is not allowed while another thread
captures.
"""

from __future__ import annotations

import threading

CAPTURING = threading.RLock()
