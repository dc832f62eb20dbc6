"""A process whose memory nobody of the same user reads."""

PR_SET_DUMPABLE = 4  #: of linux/prctl.h


def hide_memory() -> None:
    """Keeps processes of the same user from reading this one's memory and environment. Linux only; raises OSError."""
    import ctypes  # imported on use: only a process that serves, or looks for one that does, needs it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) was refused")
