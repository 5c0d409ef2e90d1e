"""ASGI applications, in the forms that frameworks use."""

import functools


async def function(scope, receive, send):
    raise AssertionError("never called")


class Framework:
    async def __call__(self, scope, receive, send):
        raise AssertionError("never called")


class Instance:
    """The class itself is the application."""

    def __init__(self, scope, receive, send):
        raise AssertionError("never called")

    def __await__(self):
        yield


class Raising:
    @property
    def application(self):
        raise AttributeError("inside a property")


instance = Framework()
method = instance.__call__
partial = functools.partial(function)
raising = Raising()
