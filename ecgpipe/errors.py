"""The errors a user can meet; each names the file or setting, what is wrong and what to do."""


class EcgpipeError(Exception):
    """A mistake of the call, its settings or its files; the command line then exits with 2."""


class BadRecord(EcgpipeError):
    """One recording cannot be used; it is refused by name and the others go on.

    The message names files relative to the data set's folder, because it is stored in the
    manifest, whose bytes must not depend on where the data lie.
    """


class Unreachable(EcgpipeError):
    """A remote file that may be there could not be read in several attempts."""


class Interrupted(Exception):
    """A signal ended the work; what was done is saved, and the same command continues it."""
