"""The papers' methods and the ones they compare with, as scikit-learn estimators."""

from reprolib.methods.classical import ACGDL, ACPIC, ACLink, ACZell, KMeans
from reprolib.methods.dcss import DCSS
from reprolib.methods.dec import DCN, DEC, DKM, IDEC, AEKMeans
from reprolib.methods.jule import JULE
from reprolib.methods.nmf import NMFD, NMFLP
from reprolib.methods.precise import PreciseFeature
from reprolib.methods.profeat import ProFeat
from reprolib.methods.scan import SCAN
from reprolib.methods.self_tuning import SCLS, SCST
from reprolib.methods.separation import InterClassSeparation
from reprolib.methods.simclr import SimCLR
from reprolib.methods.spectral import SCNJW, NCuts
from reprolib.methods.vade import VaDE

__all__ = ["ACGDL", "ACLink", "ACPIC", "ACZell", "AEKMeans"]
__all__ += ["DCN", "DCSS", "DEC", "DKM", "IDEC", "InterClassSeparation", "JULE"]
__all__ += ["KMeans", "NCuts", "NMFD", "NMFLP", "PreciseFeature", "ProFeat"]
__all__ += ["SCAN", "SCLS", "SCNJW", "SCST", "SimCLR", "VaDE"]
