//! Names of worker classes that are written for gunicorn, and the class to use in place of each.

/// Returns the worker class that corresponds to one of gunicorn's, by any name that gunicorn accepts.
pub fn class_alias(name: &str) -> Option<&'static str> {
    match without_prefix(name) {
        "sync" | "gunicorn.workers.sync.SyncWorker" => Some("sync"),
        "gthread" | "gunicorn.workers.gthread.ThreadWorker" => Some("gthread"),
        "eventlet" | "gunicorn.workers.geventlet.EventletWorker" => Some("eventlet"),
        "gevent" | "gunicorn.workers.ggevent.GeventWorker" => Some("gevent"),
        "gevent_pywsgi"
        | "gevent_wsgi"
        | "gunicorn.workers.ggevent.GeventPyWSGIWorker"
        | "geventwebsocket.gunicorn.workers.GeventWebSocketWorker" => Some("pywsgi"),
        "asgi"
        | "gunicorn.workers.gasgi.ASGIWorker"
        | "uvicorn.workers.UvicornWorker"
        | "uvicorn.workers.UvicornH11Worker"
        | "uvicorn_worker.UvicornWorker"
        | "uvicorn_worker.UvicornH11Worker" => Some("asgi"),
        _ => None,
    }
}

/// Returns the worker class for a class whose names are `names`: its own, and those of the classes that it is derived
/// from, the nearest first. A derived class comes with a warning.
pub(super) fn resolve(names: &[String]) -> Result<(&'static str, Option<String>), String> {
    let found = names.iter().find_map(|name| Some((name, class_alias(name)?)));
    let own = names.first().map(String::as_str).unwrap_or_default();
    match found {
        Some((name, class)) if name == own => Ok((class, None)),
        Some((name, class)) => Ok((
            class,
            Some(format!(
                "worker_class: {own} is derived from {name}, so {class} is used, without what {own} changes"
            )),
        )),
        None => Err(advice(names).unwrap_or(UNKNOWN).to_owned()),
    }
}

/// Returns what to use in place of a worker class that has no counterpart, for a class by any of its names.
pub fn class_advice(name: &str) -> Option<&'static str> {
    let name = without_prefix(name);
    let package = name.split('.').next().unwrap_or_default();
    match package {
        "uvicorn" | "uvicorn_worker" | "hypercorn" => Some(ASGI),
        "aiohttp" => {
            Some("aiohttp's applications are not WSGI applications; run them with aiohttp")
        }
        "meinheld" | "egg:meinheld#gunicorn_worker" => {
            Some("meinheld's loop is not supported; use gthread or gevent")
        }
        "tornado" => Some(TORNADO),
        _ if name.starts_with("gunicorn.workers.gasgi.") => Some(ASGI),
        _ if name.starts_with("gunicorn.workers.gtornado.") => Some(TORNADO),
        _ => None,
    }
}

fn advice(names: &[String]) -> Option<&'static str> {
    names.iter().find_map(|name| class_advice(name))
}

/// Removes the prefix of the names that gunicorn's package registers.
fn without_prefix(name: &str) -> &str {
    name.strip_prefix("egg:gunicorn#").unwrap_or(name)
}

const ASGI: &str = "use asgi";
const TORNADO: &str = "tornado's loop is not supported; use gthread for a WSGI application";
const UNKNOWN: &str = "a worker class is a shared library here, and none replaces this one; use sync, gthread, gevent, \
                       eventlet, pywsgi or asgi";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_gunicorn_is_known() {
        for (name, class) in [
            ("sync", Some("sync")),
            ("egg:gunicorn#sync", Some("sync")),
            ("egg:gunicorn#gevent", Some("gevent")),
            ("egg:gunicorn#gthread", Some("gthread")),
            ("gunicorn.workers.gthread.ThreadWorker", Some("gthread")),
            ("gunicorn.workers.ggevent.GeventWorker", Some("gevent")),
            ("gunicorn.workers.geventlet.EventletWorker", Some("eventlet")),
            ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", Some("pywsgi")),
            ("meinheld.gmeinheld.MeinheldWorker", None),
            ("hypercorn.workers.Worker", None),
            ("tornado", None),
            ("uvicorn.workers.UvicornWorker", Some("asgi")),
            ("uvicorn_worker.UvicornH11Worker", Some("asgi")),
            ("egg:other#gevent", None),
        ] {
            assert_eq!(class_alias(name), class, "{name}");
        }
    }

    #[test]
    fn a_class_without_a_counterpart_has_advice() {
        for (name, words) in [
            ("hypercorn.workers.Worker", "asgi"),
            ("egg:gunicorn#tornado", "gthread"),
            ("egg:meinheld#gunicorn_worker", "gthread"),
            ("gunicorn.workers.gtornado.TornadoWorker", "gthread"),
        ] {
            assert!(class_advice(name).unwrap().contains(words), "{name}");
        }
        assert_eq!(class_advice("own.Worker"), None);
    }

    #[test]
    fn a_derived_class_is_the_nearest_known_one() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let gevents = "gunicorn.workers.ggevent.GeventWorker";
        assert_eq!(resolve(&names(&[gevents])), Ok(("gevent", None)));
        let (class, warning) = resolve(&names(&["own.Worker", gevents])).unwrap();
        assert_eq!(class, "gevent");
        assert!(warning.unwrap().contains("own.Worker is derived from gunicorn.workers.ggevent"));
        assert!(resolve(&names(&["own.Worker", "object"])).unwrap_err().contains("shared library"));
        let derived = resolve(&names(&["own.Worker", "uvicorn.workers.UvicornWorker"])).unwrap();
        assert_eq!(derived.0, "asgi");
    }
}
