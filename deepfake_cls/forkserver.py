"""Imported first by the server that forks the jobs of a sweep, so that a signal to the process group does not end it.

The process that waits for a job passes signals on to it; the server ends when that process ends.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
