//! The handling of the process, tried with a stand-in that binds, writes its run file and serves
//! `/readyz`; the hub's own tests use the real executable.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// Says who it is, counts its starts, is ready at the third question.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import http.server, json, os, signal, sys
data, role = os.environ["NEXUS_DATA_DIR"], sys.argv[1]
if os.environ.get("NEXUS_CRASH"):
    sys.exit("cannot work like this")
assert os.environ["NEXUS_LISTEN"] == "127.0.0.1:0"
assert "NEXUS_BIN" not in os.environ
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
asked = 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        asked += 1
        self.send_response(200 if self.path != "/readyz" or asked >= 3 else 503)
        self.send_header("x-asked", str(asked))
        self.end_headers()
        self.wfile.write(os.environ["NEXUS_ADMIN_KEY"].encode())
    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
address = "127.0.0.1:%d" % server.server_port
with open(data + "/starts", "a") as starts:
    starts.write("x")
os.makedirs(data + "/run", exist_ok=True)
run = {"pid": os.getpid(), "listen": address, "metrics": address, "nats_url": None}
with open(data + "/run/new", "w") as file:
    json.dump(run, file)
os.rename(data + "/run/new", data + "/run/" + role + ".json")
print("serving", flush=True)
server.serve_forever()
"#;

fn stand_in() -> (TempDir, HubBuilder) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("stand-in");
    std::fs::write(&program, STAND_IN).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (folder, Hub::standalone().program(program))
}

#[tokio::test]
async fn starts_when_ready_and_starts_again_on_its_data() {
    let (_folder, builder) = stand_in();
    let mut hub = builder.start().await.unwrap();
    let answer = hub.anonymous().unwrap().get("/x").await.unwrap();
    assert_eq!(answer.text(), hub.admin_key());
    assert_eq!(
        answer.header("x-asked"),
        Some("4"),
        "not started at the third `/readyz`"
    );
    let first_url = hub.url().unwrap();

    hub.kill().await.unwrap();
    hub.start_again().await.unwrap();
    assert_ne!(
        hub.url().unwrap(),
        first_url,
        "the old run file was believed"
    );
    assert_eq!(hub.stop().await.unwrap().code(), Some(0));
    hub.start_again().await.unwrap();
    let starts = std::fs::read_to_string(hub.data_dir().join("starts")).unwrap();
    assert_eq!(starts, "xxx");
}

#[tokio::test]
async fn a_run_file_of_another_process_is_not_believed() {
    let (_folder, builder) = stand_in();
    let mut hub = builder.start().await.unwrap();
    let (_other_folder, builder) = stand_in();
    let other = builder.start().await.unwrap();
    hub.kill().await.unwrap();
    let run_file = |hub: &Hub| hub.data_dir().join("run/standalone.json");
    std::fs::copy(run_file(&other), run_file(&hub)).unwrap();
    hub.start_again().await.unwrap();
    assert_ne!(hub.url().unwrap(), other.url().unwrap());
}

#[tokio::test]
async fn a_hub_that_dies_at_its_start_is_told_at_once() {
    let (_folder, builder) = stand_in();
    let error = builder.env("NEXUS_CRASH", 1).start().await.unwrap_err();
    assert!(
        format!("{error:#}").contains("cannot work like this"),
        "{error:#}"
    );

    let (_folder, builder) = stand_in();
    let failed = builder.env("NEXUS_CRASH", 1).fail_to_start().await.unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr.contains("cannot work like this"));
}
