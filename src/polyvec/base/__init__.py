"""How adapters are written: the public methods, done once, over hooks that talk to one driver.

A public method checks its arguments and the backend's capabilities, cuts the work into batches, calls a hook
`_do_...`, tries again what is retryable, translates the driver's errors and puts the result in order. A hook
gets checked input of one batch, calls the driver and returns plain values; it catches nothing.

    hooks.py        what an adapter fills in
    collection.py   the public methods of a collection
    store.py        the public methods of a store
    ranking.py      order, ties and pages

The public methods are documented in `polyvec.protocol`.
"""

from polyvec.base.collection import BaseCollection
from polyvec.base.hooks import Fields, Hits
from polyvec.base.store import BaseVectorStore

__all__ = ["BaseCollection", "BaseVectorStore", "Fields", "Hits"]
