"""A Flask application with the usual features."""

from flask import Flask, Response, abort, jsonify, redirect, request, send_file, session, url_for

app = Flask(__name__)
app.secret_key = "a secret for tests only"


@app.route("/")
def home():
    return "<h1>Flask</h1>\n"


@app.route("/json", methods=["GET", "POST"])
def as_json():
    return jsonify(args=request.args, form=request.form, json=request.get_json(silent=True))


@app.route("/user/<name>")
def user(name):
    response = Response(f"hello {name}\n", mimetype="text/plain")
    response.set_cookie("name", name)
    return response


@app.route("/away")
def away():
    return redirect(url_for("home"))


@app.route("/stream")
def stream():
    return Response((f"{n}\n" for n in range(30)), mimetype="text/plain")


@app.route("/file")
def file():
    return send_file(__file__, mimetype="text/x-python", etag=False, last_modified=None)


@app.route("/upload", methods=["POST"])
def upload():
    return jsonify({name: len(part.read()) for name, part in request.files.items()})


@app.route("/remember/<word>")
def remember(word):
    session["word"] = word
    return "", 204


@app.route("/remembered")
def remembered():
    return session.get("word", "nothing")


@app.route("/teapot")
def teapot():
    abort(418)


@app.route("/fails")
def fails():
    raise RuntimeError("asked for")
