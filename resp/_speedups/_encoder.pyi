# The twin has the same signatures and the same contract; tests/test_parity.py holds it to both.
from .._encoder import encode_command as encode_command
from .._encoder import encode_commands as encode_commands
