"""kpm: the package behind the Koopman workbook."""

__version__ = "0.1.0"
