"""The pages of the Django project."""

import hashlib
from pathlib import Path

from django.contrib import admin
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.static import serve


def home(request):
    visits = request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"<h1>Visit {visits}</h1>\n")


def stream(request):
    return StreamingHttpResponse(f"part {n}\n" for n in range(50))


@csrf_exempt
def upload(request):
    digests = {}
    for name, file in request.FILES.items():
        digest = hashlib.sha256()
        for chunk in file.chunks():
            digest.update(chunk)
        digests[name] = [file.name, file.size, digest.hexdigest()]
    return JsonResponse({"files": digests, "fields": request.POST.dict()})


def fails(request):
    raise RuntimeError("asked for")


urlpatterns = [
    path("", home),
    path("admin/", admin.site.urls),
    path("stream/", stream),
    path("upload/", upload),
    path("fails/", fails),
    path("static/admin/<path:path>", serve, {"document_root": Path(admin.__file__).parent / "static/admin"}),
]
