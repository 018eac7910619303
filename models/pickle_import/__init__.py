"""Foreign StyleGAN pickles to our checkpoints, without importing or running anything of the file.

Official files carry Python source and execute it when they are unpickled. Here the opcodes are
read by our own machine (`machine`), every name has an inert stand-in or is refused (`stand_ins`),
tensors are views checked against their bytes (`storages`), the network is picked out of the tree
(`networks`), its arguments come from what it stored about itself (`nvidia`, `stylegan_v`), and the
result must fit our own network in every name, shape, filter and attribute (`conversion`).
"""

from models.pickle_import.conversion import Conversion, convert, interpret, read_pickle
from models.pickle_import.limits import Limits

__all__ = ["Conversion", "Limits", "convert", "interpret", "read_pickle"]
