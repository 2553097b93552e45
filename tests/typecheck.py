"""The run-time type checker for functions of tensors; pyproject.toml lists the modules it is switched on for."""

from beartype import BeartypeConf, beartype

# PEP 484: an int is welcome where a float is declared.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
