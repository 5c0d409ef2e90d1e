//! `python/jimu_server/django`: a project serves itself, by the management command `jimu` or through django-prodserver.

use std::fs;

use jimu_tests::cell::{self, Cell};
use jimu_tests::runner::Behaviour;
use jimu_tests::server::Setup;
use jimu_tests::{artifacts, behaviour};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![behaviour!(a_django_project_has_a_command_that_serves_it).of_python()]
}

const MANAGE: &str = "import os, sys\n\
    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'own')\n\
    from django.core.management import execute_from_command_line\n\
    execute_from_command_line(sys.argv)\n";

const SETTINGS: &str = "from django.http import HttpResponse\n\
    from django.urls import path\n\
    SECRET_KEY = 'of a test'\n\
    ALLOWED_HOSTS = ['*']\n\
    INSTALLED_APPS = ['jimu_server.django']\n\
    ROOT_URLCONF = __name__\n\
    urlpatterns = [path('', lambda request: HttpResponse('page of ' + __name__))]\n";

/// Added to the settings for django-prodserver.
const PRODSERVER: &str = "INSTALLED_APPS.append('django_prodserver')\n\
    BACKEND = 'jimu_server.django.prodserver.JimuServer'\n\
    PRODUCTION_PROCESSES = {'web': {'BACKEND': BACKEND, 'ARGS': {'max-requests': '1000'}}}\n";

fn a_django_project_has_a_command_that_serves_it(cell: &Cell) {
    let python = cell::frameworks_python().expect("the behavior's condition");
    for (script, page) in [
        ("exec \"$PYTHON\" project/manage.py jimu \"$@\"", "page of own"),
        ("cd project; exec \"$PYTHON\" manage.py jimu --settings=other \"$@\"", "page of other"),
        // It takes no arguments for the server.
        (
            "cd project; export JIMU_CMD_ARGS=\"$*\"; exec \"$PYTHON\" manage.py server web --settings=prod",
            "page of prod",
        ),
    ] {
        // The command passes its interpreter on.
        let setup = Setup::script(script).class(cell.class.path.clone());
        let top = setup.dir().to_owned();
        fs::create_dir(top.join("project")).unwrap();
        // Stands for the installed package, whose executable is beside its interpreter.
        fs::create_dir(top.join("jimu_server")).unwrap();
        let package = format!(
            "__path__.append({:?})\ndef executable():\n    return {:?}\n",
            artifacts::root().join("python/jimu_server").to_string_lossy(),
            artifacts::executable("host").to_string_lossy(),
        );
        let setup = setup
            .file("jimu_server/__init__.py", package)
            .file("project/manage.py", MANAGE)
            .file("project/own.py", SETTINGS)
            .file("project/other.py", SETTINGS)
            .file("project/prod.py", [SETTINGS, PRODSERVER].concat());
        let server = setup.env("PYTHON", &python).env("PYTHONPATH", &top).start();
        assert_eq!(server.get("/").text(), page);
        server.stop();
    }
}
