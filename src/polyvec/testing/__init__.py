"""The contract as plain pytest classes, shipped so that an outside adapter can run it; see `plugin`.

contract.py      each promise of the contract, a test each
filter_cases.py  the filter matrix
programs.py      random programs against a backend and the memory store at once;
                 also a command: python -m polyvec.testing.programs --store chroma:./data
compare.py       what counts as the same answer
data.py          values, keys and ids that break things
"""
