"""A Django project in one file: the admin, sessions, and a page rendered from a template."""

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import engines

PAGE = """<!doctype html><title>{{ title }}</title><table>
{% for row in rows %}<tr class="{% cycle 'odd' 'even' %}"><td>{{ row.id }}</td><td>{{ row.name|title }}</td>
<td>{{ row.price|floatformat:2 }}</td></tr>
{% endfor %}</table>"""

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for benchmarks",
    STATIC_URL="static/",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)
django.setup()

from django.contrib import admin  # noqa: E402  (needs the settings above)
from django.urls import path  # noqa: E402

TEMPLATE = engines["django"].from_string(PAGE)
ROWS = [{"id": n, "name": "item %d" % n, "price": n * 1.25} for n in range(25)]


def page(request):
    return HttpResponse(TEMPLATE.render({"title": "Items", "rows": ROWS}, request))


urlpatterns = [path("", page), path("admin/", admin.site.urls)]
application = get_wsgi_application()
