"""Makes a torchvision that was built for CUDA importable beside a torch that was built without it.

Loaded by a .pth line at every start of the interpreter, so it imports nothing until torchvision is wanted. Such a
torchvision registers shape rules for operators whose compiled part is missing; declaring the operators is enough for
the import and for transforms, which are plain torch. The compiled operators themselves stay missing.
"""

import sys


class _DeclareOperators:
    """A finder that finds nothing: it acts once, when torchvision is looked for."""

    libraries = []

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and not self.libraries:
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "DEF")
                library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                # The declarations last as long as the object does.
                self.libraries.append(library)
        return None


sys.meta_path.insert(0, _DeclareOperators())
