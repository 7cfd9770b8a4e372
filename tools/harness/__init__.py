"""What the fuzzer and the killer share: small inputs of every sort, and the commands on them."""
