"""The errors a user can meet; each names the file or setting, what is wrong and what to do."""

# Exit codes of the command line: a mistake of the call or its files; done, but some records were
# refused; a damaged store or run; a folder that another process writes to; a remote file that could
# not be read in several attempts; ended by a signal, work saved.
MISTAKE, REFUSED, DAMAGED, BUSY, UNREACHABLE, INTERRUPTED = 2, 3, 4, 5, 6, 130


class EcgpipeError(Exception):
    """A mistake of the call, its settings or its files; the command line exits with ``code``."""

    code = MISTAKE


class BadRecord(EcgpipeError):
    """One recording cannot be used; it is refused by name and the others go on.

    The message names files relative to the data set's folder, because it is stored in the
    manifest, whose bytes must not depend on where the data lie.
    """


class Damaged(EcgpipeError):
    """A file of a store or a run is not what was written."""

    code = DAMAGED


class Busy(EcgpipeError):
    """Another process writes to the same folder."""

    code = BUSY


class Unreachable(EcgpipeError):
    """A remote file that may be there could not be read in several attempts."""

    code = UNREACHABLE


class LoaderDied(EcgpipeError):
    """A loader process of a training was killed from outside."""


class Interrupted(Exception):
    """A signal ended the work; what was done is saved, and the same command continues it."""
