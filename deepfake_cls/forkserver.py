"""Imported first by the server that forks the jobs of a sweep: a signal to the whole process group must not end it.

A stop reaches a job through the process that waits for the job, and the server ends when that process has ended.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
