"""Make the server that forks the jobs of a sweep ignore signals; the server imports this module first.

The process that waits for a job passes signals on to the job, and the server ends with that process.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
