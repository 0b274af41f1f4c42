"""Any bytes against codec and client: what must hold for every input, and a runner that looks.

A target is a function from bytes to None that raises if something does not hold:

- `any_cut`: what comes out of a stream depends on its bytes, never on how they were cut.
- `twins`: the compiled parser does what the pure one does, to the letter of its errors.
- `round_trip`: a value encoded and parsed is the value again, in RESP3 and in RESP2.
- `reencode`: so is every value that a parser makes of arbitrary bytes.
- `commands`: a command goes out as its arguments, or is refused.
- `encoder_twins`: the compiled encoder does what the pure one does.
- `session`: any bytes are replies in their order, or a named error; a push is never a reply.
- `url`: a URL is understood or refused, and no refusal shows a credential.
- `messages`: a subscriber in RESP2 tells messages from replies, and keeps within its bound.
- `command_table`: what is said of a command is consistent; what is cached only reads.
- `cache`: a cache stays within its bounds, whatever is done to it.

`python -m fuzz` runs them with the standard library alone, and says how many lines of codec and
client a sample of the inputs came to; `python -m fuzz --atheris` is guided by libFuzzer's coverage.
A finding is printed as a literal, to become a row of the tests.

Nothing is imported here: under atheris, codec and client have to be imported by its own hand.
"""
