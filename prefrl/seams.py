"""Objects by name: those of this package, and those that users bring as `module:Name` or `file.py:Name`.

Each seam has one `Registry`: agents, query methods, schedules, teachers, reward networks, tasks. What it is given may
be a name, or from Python the object itself; a run keeps the name, by which the object is found again when the run is
resumed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from prefrl.errors import ANYTHING, UserError, near_names
from prefrl.program import own_program

T = TypeVar("T")

if TYPE_CHECKING:
    Named = Any
    """A name, or from Python the object itself, which settings turn into the name under which it is found again."""
else:
    Named = str  # what the command line reads

_consented: set[str] = set()  # names of code that were given by this user, or in settings that they trust
_trusting = False  # whatever data name
_files: dict[Path, tuple[int, ModuleType]] = {}  # loaded so far, and of which time: a file's objects share one module


class Registry(Mapping[str, T]):
    """What a seam takes: objects by name, and how an object of a user becomes one of them.

    Args:
        what: the seam takes, e.g. "agent"; for messages.
        known: objects of this package by name.
        adopt: turns a user's object into one, given the object and the name under which messages quote it; raises
            `UserError` where it cannot be one.
    """

    def __init__(self, what: str, known: Mapping[str, T], adopt: Callable[[Any, str], T]) -> None:
        self.what, self._known, self._adopt = what, known, adopt

    def __getitem__(self, name: str) -> T:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, given: Any) -> T:
        """Return what a name stands for, or what an object of a user comes to; one of the known stays what it is.

        Raises:
            UserError: there is none of that name, or the object cannot be used here.
        """
        if isinstance(given, str) and given in self._known:
            return self._known[given]
        if any(given is known for known in self._known.values()):
            return given
        if not isinstance(given, str):
            return self._adopt(given, f"{self.what} {quoted(given)}")
        self._refuse_unknown(given)
        return self._adopt(load_object(given, self.what), f"{self.what} {given!r}")

    def check_read(self, name: Any) -> None:
        """Check a name that stands in data, a record or a saved reward: these must not have code imported.

        Raises:
            UserError: it names code that is not imported yet and that no trusted settings name.
        """
        if not isinstance(name, str):
            raise UserError(f"The name of a {self.what} must be a text. Received {name!r}")
        if ":" in name and not _trusting and name not in _consented and not _is_imported(name):
            raise UserError(
                f"The {self.what} {name!r} is code, which is not run just because data name it. If you trust whoever "
                f"wrote it, import its module first; on the command line: --trust"
            )

    def name(self, given: Any) -> str:
        """Return the name by which a run finds what it was given again; a bare name must be known.

        Raises:
            UserError: there is none of that name, or the object lies where it cannot be found.
        """
        for name, known in self._known.items():
            if given is known:
                return name
        if not isinstance(given, str):
            return place_of(given, self.what)
        if given not in self._known:
            self._refuse_unknown(given)
        return given

    def _refuse_unknown(self, name: str) -> None:
        if ":" not in name:
            raise UserError(
                f"There is no {self.what} {name!r}; choose one of {', '.join(self._known)}, or name one of your own as "
                f"module:Name.{near_names(name, self._known)}"
            )


def consent(names: Iterable[str]) -> None:
    """Let data name this code from now on: this user gave the names, or trusts the settings that do."""
    _consented.update(names)


def trust_data() -> None:
    """Let data name any code from now on: this user trusts whoever wrote them."""
    global _trusting
    _trusting = True


def _is_imported(where: str) -> bool:
    place, _, name = where.rpartition(":")
    if place.endswith(".py"):
        main = getattr(sys.modules["__main__"], "__file__", None)
        path = Path(place).resolve()
        return path in _files or (main is not None and Path(main).resolve() == path)
    return hasattr(sys.modules.get(place), name)


def load_object(where: str, what: str, kind: str = "object") -> Any:
    """Load an object of a user by name.

    Args:
        where: `"path/to/file.py:name"` or `"package.module:name"`; a module may lie in the working directory.
        what: it is to be, e.g. "reward function"; for messages.
        kind: of thing, likewise, e.g. "function".

    Raises:
        UserError: no such file, module or object; importing it fails.
    """
    place, _, name = where.rpartition(":")
    if not place or not name.isidentifier():
        article = "An" if what[0] in "aeiou" else "A"
        raise UserError(
            f"{article} {what} is named like path/to/file.py:{kind} or package.module:{kind}. Received {where!r}"
        )
    module = load_module(place, what)
    if not hasattr(module, name):
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise UserError(f"There is no {kind} {name!r} in {place}.{near_names(name, known)}")
    return getattr(module, name)


def load_function(where: str, what: str, takes: str) -> Callable[..., Any]:
    """Load a function of a user by name, as `load_object` does.

    Args:
        where: `"path/to/file.py:function"` or `"package.module:function"`.
        what: it is to be, e.g. "reward function"; for messages.
        takes: what it takes, for messages, e.g. "a segment".

    Raises:
        UserError: no such file, module or function; importing it fails; it cannot be called.
    """
    function = load_object(where, what, "function")
    if not callable(function):
        raise UserError(f"{where} is a {type(function).__name__}; expected a function that takes {takes}.")
    return function


def is_function_name(name: str) -> bool:
    """Tell whether a name may be that of a function, and not of a file or folder that is there."""
    place, colon, function = name.rpartition(":")
    return bool(colon and place) and function.isidentifier() and not Path(name).exists()


def load_module(place: str, what: str) -> ModuleType:
    """Load a module of a user.

    Args:
        place: path of its file, ending in `.py`, or its dotted name; a module may lie in the working directory.
        what: is to be loaded from it; for messages.

    Raises:
        UserError: there is none, or importing it fails.
    """
    return _import_file(Path(place), what) if place.endswith(".py") else _import_module(place, what)


def _import_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise UserError(f"There is no file {path} to load the {what} from (looked in {Path.cwd()}).")
    main = sys.modules["__main__"]
    resolved, changed = path.resolve(), path.stat().st_mtime_ns
    if getattr(main, "__file__", None) and Path(str(main.__file__)).resolve() == resolved:
        return main  # a script that trains with what it defines itself
    if resolved in _files and _files[resolved][0] == changed:
        return _files[resolved][1]
    name = f"prefrl_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look themselves up there
    with own_program():
        try:
            spec.loader.exec_module(module)
        except ANYTHING as error:
            del sys.modules[name]
            raise UserError(f"Importing {path} failed with {type(error).__name__}: {error}") from error
    _files[resolved] = changed, module
    return module


def _import_module(name: str, what: str) -> ModuleType:
    here = os.getcwd()  # where modules are found too, after all installed ones
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    with own_program():
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                raise UserError(
                    f"There is no module {name!r} to load the {what} from (looked in {here} too). Install it, go to "
                    "its folder, or give the path of its file: path/to/file.py:name"
                ) from None
            raise UserError(f"Importing {name} failed with {type(error).__name__}: {error}") from error
        except ANYTHING as error:
            raise UserError(f"Importing {name} failed with {type(error).__name__}: {error}") from error


def place_of(thing: Any, what: str) -> str:
    """Return the name by which `load_object` finds an object again, e.g. `"package.module:name"`.

    Raises:
        UserError: it lies in no module, but e.g. in a function or a notebook.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(name, str) or not isinstance(module, str):  # an instance: look for it
        module, name = _global_name(thing)
    found = sys.modules.get(module)
    if found is not None and vars(found).get(name) is thing:
        file = getattr(found, "__file__", None)
        if file is None or (module != "__main__" and not module.startswith("prefrl_user_")):
            if module != "__main__":
                return f"{module}:{name}"
        else:
            return f"{file}:{name}"
    raise UserError(
        f"A run must find its {what} again when it is resumed, but {quoted(thing)} is in no module: define it at the "
        "top level of a .py file and import it from there."
    )


def _global_name(thing: Any) -> tuple[str, str]:
    """Return the module and the name of a global variable that holds an object, the script that runs last of all."""
    names = sorted(sys.modules, key=lambda name: name == "__main__")
    for module in names:
        for name, value in list(getattr(sys.modules[module], "__dict__", {}).items()):
            if value is thing and name.isidentifier():
                return module, name
    return "", ""


def quoted(thing: Any) -> str:
    """Return an object's name as messages quote it."""
    return repr(getattr(thing, "__qualname__", None) or type(thing).__qualname__)


def check_call(thing: Any, where: str, positional: tuple[str, ...], keywords: tuple[str, ...] = ()) -> None:
    """Check that an object can be called with these arguments.

    Args:
        thing: the object.
        where: what it is and where it lies, for the message.
        positional: names of the arguments passed by place.
        keywords: names of those passed by name.

    Raises:
        UserError: it cannot.
    """
    form = ", ".join([*positional, *(f"{name}=..." for name in keywords)])
    if not callable(thing):
        raise UserError(f"The {where} must be something to call with ({form}); it is a {type(thing).__name__}.")
    try:
        inspect.signature(thing).bind(*positional, **dict.fromkeys(keywords))
    except TypeError as error:
        raise UserError(f"The {where} must take ({form}): {error}.") from None
    except ValueError:  # it does not tell what it takes
        return


def made_from_seed(protocol: type[Any]) -> Callable[[Any, str], Callable[[int], Any]]:
    """Return how a registry adopts what makes an object from a seed, and checks what it makes against a protocol."""

    def adopt(thing: Any, where: str) -> Callable[[int], Any]:
        check_call(thing, where, (), ("seed",))

        def make(seed: int) -> Any:
            made = thing(seed=seed)
            check_members(made, where, protocol)
            return made

        return make

    return adopt


def check_members(thing: Any, where: str, protocol: type[Any]) -> None:
    """Check that an object has what a protocol asks for, by name.

    Raises:
        UserError: something is missing.
    """
    wanted = [name for name in {**vars(protocol), **protocol.__annotations__} if not name.startswith("_")]
    missing = [name for name in wanted if not hasattr(thing, name)]
    if missing:
        raise UserError(
            f"The {where} gives a {type(thing).__name__} without {', '.join(missing)}; expected what "
            f"{protocol.__module__}.{protocol.__name__} lists."
        )
