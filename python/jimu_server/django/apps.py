"""The Django application that has the management command."""

from django.apps import AppConfig


class JimuConfig(AppConfig):
    """Its label is not that of the package, `django`."""

    name = "jimu_server.django"
    label = "jimu_server"
