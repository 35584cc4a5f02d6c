"""Headers that scripts see and headers that they add."""

import collections.abc

MAX_ANSWER_HEADERS = 32
MAX_ANSWER_CHARACTERS = 8192


class RequestHeaders(dict):
    """Headers of a request: names in lower case, found in any case; read-only, because a context is.

    A dict, so that `json` and everything else that knows dicts can read it.
    """

    __slots__ = ()

    def __getitem__(self, name):
        return dict.__getitem__(self, _lower(name))

    def __contains__(self, name):
        return dict.__contains__(self, _lower(name))

    def get(self, name, default=None):
        return dict.get(self, _lower(name), default)

    def __eq__(self, other):
        if not isinstance(other, collections.abc.Mapping):
            return NotImplemented
        return dict(self) == {_lower(name): value for name, value in other.items()}

    def __hash__(self):
        # Contexts are hashable.
        return hash(frozenset(self.items()))

    def __reduce__(self):
        # By default, unpickling sets the items one by one.
        return RequestHeaders, (dict(self),)

    def _refuse(self, *_, **__):
        raise TypeError("the headers of a request cannot be changed; dict(context.headers) is a copy that can")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse


def _lower(name):
    return name.lower() if isinstance(name, str) else name


def for_answer(headers):
    """Returns the headers that a function returned as a list of names and values. Of equal names, the last counts.

    The server checks characters and names; the limits are here, because the list has to fit into a message.
    """
    if not isinstance(headers, collections.abc.Mapping):
        raise TypeError(f"the third value must be a dict with headers, not {type(headers).__name__}")
    found = _Found()
    for name, value in headers.items():
        found.add(name, value)
    return found.pairs()


def for_error(headers):
    """Returns the headers of an exception, a mapping or pairs, as `for_answer` does, and why others are left out.
    Raises what reading them raises."""
    found, problems = _Found(), []
    for count, (name, value) in enumerate(headers.items() if hasattr(headers, "items") else headers, 1):
        try:
            found.add(name, value)
        except (TypeError, ValueError) as problem:
            problems.append(str(problem))
        if count > MAX_ANSWER_HEADERS:
            break
    return found.pairs(), problems


class _Found:
    def __init__(self):
        self._by_name = {}
        self._count = self._size = 0

    def add(self, name, value):
        """Adds a header as plain str: subclasses may have a length and a text of their own."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a header must be str, not {type(name).__name__}")
        if isinstance(value, int) and not isinstance(value, bool):
            value = int.__repr__(value)
        if not isinstance(value, str):
            raise TypeError(f"the value of a header must be str or int, not {type(value).__name__}")
        name, value = str.__str__(name), str.__str__(value)
        if self._count == MAX_ANSWER_HEADERS:
            raise ValueError(f"more than {MAX_ANSWER_HEADERS} headers")
        if self._size + len(name) + len(value) > MAX_ANSWER_CHARACTERS:
            raise ValueError(f"the headers have more than {MAX_ANSWER_CHARACTERS} characters")
        # The server gets them in UTF-8.
        (name + value).encode()
        self._count += 1
        self._size += len(name) + len(value)
        self._by_name[name.lower()] = (name, value)

    def pairs(self):
        return list(self._by_name.values())
