"""`manage.py jimu`: serves the project. All arguments are those of `host`."""

from django.core.management.base import BaseCommand

from jimu_server.django import serve


class Command(BaseCommand):
    """Replaces the process of manage.py by the server."""

    help = "Serve this project with Jimu. The arguments are those of `host`."
    requires_system_checks = []

    def run_from_argv(self, argv):
        # The server has flags that argparse does not need to know.
        serve(without_settings(argv[2:]))

    def add_arguments(self, parser):
        parser.add_argument("arguments", nargs="*")

    def handle(self, *args, **options):
        serve([*args, *options["arguments"]])


def without_settings(arguments):
    """Return the arguments without Django's own `--settings`, which is in the environment by now."""
    rest = iter(arguments)
    kept = []
    for argument in rest:
        if argument == "--settings":
            next(rest, None)
        elif not argument.startswith("--settings="):
            kept.append(argument)
    return kept
