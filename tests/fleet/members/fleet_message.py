"""The message of the fleet in Python's types, for both members that are written in it."""


def message_of(sender):
    return {
        "type": "fleet.message",
        "from": sender,
        "nothing": None,
        "yes": True,
        "no": False,
        "least": -(2**63),
        "most": 2**63 - 1,
        "tenth": 0.1,
        "whole": 1.0,
        "text": "Grüße, 世界, 😀",
        "bytes": b"\x00\xff\xfe\x80",
        "nested": [1, [2.5, None, b"\x07"], {"clé": {"": -1}}],
    }


def typed(value):
    """`value` beside its type, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [typed(each) for each in value]
    return type(value), value


def fault_of(message, sender):
    """What is not as it was sent; None if all is."""
    expected = message_of(sender)
    if set(message) != set(expected):
        return f"the keys are {sorted(message)}"
    for key, value in expected.items():
        if typed(message[key]) != typed(value):
            return f"{key} is {message[key]!r}"
    return None
