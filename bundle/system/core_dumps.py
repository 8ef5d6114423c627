"""Keeping keys out of core dumps."""


def forbid_core_dumps() -> None:
    """Have the kernel write no memory of this process, nor of those it starts, to a file when one crashes.

    It would hold API keys, questions and replies, and of a server all of its weights. The hard limit stays, so that
    whoever looks for a crash's cause can still allow it to a process of their own.
    """
    import resource  # there is none on Windows

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
