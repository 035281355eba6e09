"""The papers' methods and the ones they compare with, as scikit-learn estimators."""

from reprolib.methods.agglomerative import ACGDL, ACPIC, ACZell
from reprolib.methods.jule import JULE

__all__ = ["ACGDL", "ACPIC", "ACZell", "JULE"]
