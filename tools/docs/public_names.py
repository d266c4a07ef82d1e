"""A griffe extension: a public name of a package is what `__all__` exports, not a module."""

from typing import Any

import griffe


class PublicNames(griffe.Extension):
    """Document `package.load`, a function, where the package also has a module `load`."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Point each exported name that a module of the same name hides to what is in it."""
        del kwargs
        for name in pkg.exports or ():
            module = pkg.members.get(str(name))
            if module is not None and module.is_module and name in module.members:
                hidden = module.members[str(name)]
                pkg.members[str(name)] = griffe.Alias(str(name), target=hidden, parent=pkg)
