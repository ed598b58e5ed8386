"""The contract on every backend that this machine can start; see tests/conftest.py for the options."""

from polyvec.testing.contract import *  # noqa: F403  # the tests are what is imported
