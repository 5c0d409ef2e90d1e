"""A backend for django-prodserver:

    PRODUCTION_PROCESSES = {
        "web": {"BACKEND": "jimu_server.django.prodserver.JimuServer", "ARGS": {"workers": "auto"}},
    }
"""

from django_prodserver.backends.base import BaseServerBackend

from jimu_server.django import serve


class JimuServer(BaseServerBackend):
    """Serves the project with the flags of ARGS."""

    def start_server(self, *args: str) -> None:
        serve(args)
