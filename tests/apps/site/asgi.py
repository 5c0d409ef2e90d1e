"""The Django project as an ASGI application, with a WebSocket of Channels."""

import os

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")


class Doubles(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        await self.send_json({"double": 2 * content["number"]})


application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("doubles/", Doubles.as_asgi())]),
    }
)
