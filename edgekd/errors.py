"""The one exception family. Each message is a single sentence: what is wrong, where, how to mend it.

The command line prints the message on stderr and exits with `exit_code`; nothing else does.
"""


class EdgekdError(Exception):
    """Base of every error that a user can cause or mend."""

    exit_code = 1


class ConfigError(EdgekdError):
    """A recipe, target profile, option or task is not what it should be."""

    exit_code = 2


class ArtifactError(EdgekdError):
    """A file (model, knowledge, manifest, data) is broken, truncated or of another origin."""

    exit_code = 3


class UnsupportedOpError(EdgekdError):
    """A model holds an operator, dtype or shape that edgekd or the target cannot run."""

    exit_code = 4


class BudgetError(EdgekdError):
    """Something does not fit: the message says what is needed and what there is."""

    exit_code = 5


class DeviceError(EdgekdError):
    """A device is away, refuses, is full, or answered something unexpected."""

    exit_code = 6


class VerifyError(EdgekdError):
    """Two things that must be equal are not: a digest, a host key, an output byte."""

    exit_code = 7


class RolloutError(EdgekdError):
    """A fleet rollout cannot go on."""

    exit_code = 8


class MissingDependencyError(EdgekdError):
    """An optional package or tool is absent; the message holds the line that installs it."""

    exit_code = 9
