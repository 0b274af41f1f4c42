# The twin has the same signatures and the same contract; tests/test_parity.py holds it to both.
from .._parser import Parser as Parser
from .._parser import parse as parse
