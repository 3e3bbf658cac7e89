use std::net::Ipv4Addr;

use super::*;

const CANARY: &str = "canary-4711-canary-4711";

fn environment<const N: usize>(variables: [(&str, &str); N]) -> Environment {
    Environment(variables.into_iter().map(|(name, text)| (name.into(), text.into())).collect())
}

fn load(text: &str) -> Result<Effective, Problems> {
    Effective::load(Some(&Source::from_text("tidecast.toml", text)), &Environment::empty())
}

/// Every line but the closing count.
fn problems<T>(result: Result<T, Problems>) -> Vec<String> {
    let text = result.err().expect("is refused").to_string();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.pop();
    lines
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let loaded = Effective::load(None, &environment([("HOME", "/home/ada")])).unwrap();
    let show = loaded.show();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        show.lines().map(words).collect::<Vec<_>>(),
        [
            "data_dir = \"/home/ada/.local/share/tidecast\" # default",
            "http.listen = \":8080\" # default",
            "# http.public is not set # default",
            "http.egress_max = \"0\" # default",
            "http.connections_per_address = 1000 # default",
            "http.alternates = \"\" # default",
            "http.redirect = false # default",
            "https.listen = \":8443\" # default",
            "rtmps.listen = \":1936\" # default",
            "tls.certificate = \"\" # default",
            "tls.key = \"\" # default",
            "tls.self_signed = false # default",
            "acme.domain = \"\" # default",
            "acme.terms_agreed = false # default",
            "acme.contact = \"\" # default",
            "acme.directory = \"letsencrypt\" # default",
            "acme.authority = \"\" # default",
            "rtmp.listen = \":1935\" # default",
            "webrtc.listen = \":8189\" # default",
            "webrtc.public = \"\" # default",
            "webrtc.stun = \"\" # default",
            "webrtc.ice_servers = \"\" # default",
            "webrtc.turn_secret = \"\" # default",
            "player.prefer = \"hls\" # default",
            "admin.listen = \"127.0.0.1:9090\" # default",
            "# auth.publish_key is not set # default",
            "publish.linger = \"20s\" # default",
            "publish.on_conflict = \"refuse\" # default",
            "hls.profile = \"default\" # default",
            "roles = \"all\" # default",
            "# upstream is not set # default",
            "relay.listen = \":7400\" # default",
            "# relay.public is not set # default",
            "cluster.nats = \"\" # default",
            "cluster.nats_credentials = \"\" # default",
            "cluster.nats_replicas = 1 # default",
            "cluster.zone = \"\" # default",
            "cluster.dir = \"/home/ada/.local/share/tidecast/cluster\" # default",
            "drain.timeout = \"15s\" # default",
            "streams.unlisted = \"\" # default",
            "transcode.ladder = \"auto\" # default",
            "transcode.encoder = \"\" # default",
            "transcode.encoders = \"\" # default",
        ]
    );
}

#[test]
fn data_dir_follows_the_base_directory_specification() {
    let cases = [
        (environment([("XDG_DATA_HOME", "/data"), ("HOME", "/home/ada")]), "/data/tidecast"),
        (environment([("XDG_DATA_HOME", "data"), ("HOME", "/home/ada")]), "/home/ada/.local/share/tidecast"),
        (environment([("XDG_DATA_HOME", ""), ("HOME", "")]), "/var/lib/tidecast"),
        (Environment::empty(), "/var/lib/tidecast"),
    ];
    for (environment, expected) in cases {
        assert_eq!(environment.data_dir_default(), Path::new(expected));
    }
}

#[test]
fn the_environment_wins_over_the_file_and_each_value_tells_where_it_is_from() {
    let source = Source::from_text("tidecast.toml", "[http]\nlisten = \":80\"\n[hls]\nprofile = \"low\"\n");
    let environment = environment([
        ("TIDECAST__HTTP__LISTEN", "127.0.0.1:8080"),
        ("TIDECAST__DATA_DIR", "/srv/tidecast"),
        ("TIDECAST__AUTH__PUBLISH_KEY", CANARY),
        ("TIDECAST_PORT", "tcp://10.0.0.1:8080"),
    ]);
    let loaded = Effective::load(Some(&source), &environment).unwrap();
    assert_eq!(loaded.config.http.listen, SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    assert_eq!(loaded.config.data_dir, Path::new("/srv/tidecast"));
    assert_eq!(loaded.config.hls.profile, Profile::Low);
    assert!(loaded.config.auth.publish_key.as_ref().unwrap().verify(CANARY));

    assert_eq!(loaded.origin("http.listen").to_string(), "environment TIDECAST__HTTP__LISTEN");
    assert_eq!(loaded.origin("hls.profile").to_string(), "tidecast.toml:4:11");
    assert_eq!(loaded.origin("rtmp.listen").to_string(), "default");
    assert!(!loaded.show().contains(CANARY));
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let source = Source::from_text(
        "tidecast.toml",
        r#"data_dir = "data"
http = { listen = "localhost:80" }
publish_key = "x"

[rtmp]
listen = 1935
  listn = ":1935"

[admin]
listen = ":9090"

[auth]
publish_key = "short"

[htpp]
[hls.profile]
parts = "200ms"

[[metrics]]
"#,
    );
    let environment = environment([
        ("TIDECAST__HLS__PROFILE", "lowest"),
        ("TIDECAST__HTTP_LISTEN", ":80"),
        ("TIDECAST__METRICS", "on"),
    ]);
    assert_eq!(
        problems(Effective::load(Some(&source), &environment)),
        [
            "tidecast.toml:1:12: data_dir: \"data\" would be another directory for every place tidecast is started \
             in; allowed: an absolute path",
            "tidecast.toml:2:19: http.listen: \"localhost:80\" is no address; allowed: IP:PORT such as \
             127.0.0.1:8080 or [::1]:8080, or :PORT for every address of the machine",
            "tidecast.toml:3:1: publish_key: unknown key; did you mean auth.publish_key?",
            "tidecast.toml:6:10: rtmp.listen: is of type integer, not a text in quotes; allowed: IP:PORT such as \
             127.0.0.1:8080 or [::1]:8080, or :PORT for every address of the machine",
            "tidecast.toml:7:3: rtmp.listn: unknown key; did you mean rtmp.listen?",
            "tidecast.toml:10:10: admin.listen: \":9090\" can be reached from other machines, and there is no \
             authentication here; allowed: a loopback IP:PORT such as 127.0.0.1:9090 or [::1]:9090",
            "tidecast.toml:13:15: auth.publish_key: has 5 characters; allowed: 16 to 128 of the characters \
             A-Z a-z 0-9 - . _ ~",
            &format!("tidecast.toml:15:2: htpp: unknown key; the keys are {}", problem::key_names()),
            "tidecast.toml:17:1: hls.profile.parts: unknown key; did you mean hls.profile?",
            &format!("tidecast.toml:19:3: metrics: unknown key; the keys are {}", problem::key_names()),
            "environment TIDECAST__HLS__PROFILE: hls.profile: \"lowest\" is no profile; allowed: \"default\" (parts \
             of 500 ms) or \"low\" (parts of 200 ms)",
            "environment TIDECAST__HTTP_LISTEN: sets no key; did you mean TIDECAST__HTTP__LISTEN?",
            &format!("environment TIDECAST__METRICS: sets no key; the keys are {}", problem::key_names()),
        ]
    );
}

#[test]
fn a_section_without_its_key_is_explained() {
    assert_eq!(
        problems(load("http = \":8080\"")),
        [
            "tidecast.toml:1:1: http: is a section; its keys: http.listen, http.public, http.egress_max, http.connections_per_address, http.alternates, \
             http.redirect"
        ]
    );
}

#[test]
fn columns_count_characters_not_bytes() {
    assert_eq!(
        problems(load("# größe\nhls = { \"größe\" = 1 }")),
        [format!("tidecast.toml:2:9: hls.größe: unknown key; the keys are {}", problem::key_names())]
    );
}

#[test]
fn no_problem_repeats_a_publish_key() {
    for text in [
        format!("[auth]\npublish_key = \"{CANARY}\n"),
        format!("[auth]\npublish_key = {CANARY}\n"),
        format!("[auth]\npublish_key = [\"{CANARY}\"]\n"),
        format!("[auth]\npublish_key = \"{CANARY}&\"\n"),
        format!("[auth]\npublish_key = \"{CANARY}\"\npublish_key = \"{CANARY}\"\n"),
        format!("[auth]\npublishkey = \"{CANARY}\"\n"),
    ] {
        let told = problems(load(&text));
        assert!(told[0].starts_with("tidecast.toml:"), "{told:?}");
        assert!(!told.concat().contains("4711"), "{told:?}");
    }
}

#[test]
fn admin_stays_on_this_machine_while_it_has_no_authentication() {
    for open in [
        ":9090",
        "0.0.0.0:9090",
        "[::]:9090",
        "192.0.2.1:9090",
        "[2001:db8::1]:9090",
        "[::ffff:192.0.2.1]:9090",
    ] {
        assert_eq!(problems(load(&format!("admin.listen = \"{open}\""))).len(), 1, "{open}");
    }
    for closed in ["127.0.0.1:0", "127.8.8.8:9090", "[::1]:9090", "[::ffff:127.0.0.1]:9090"] {
        assert!(load(&format!("admin.listen = \"{closed}\"")).is_ok(), "{closed}");
    }
}

#[test]
fn two_listeners_on_one_address_are_refused_at_a_line_the_operator_wrote() {
    let told = problems(load("http.listen = \":1935\""));
    assert_eq!(
        told,
        ["tidecast.toml:1:15: http.listen: is the same address as rtmp.listen; allowed: another port"]
    );

    let told = problems(load("webrtc.listen = \":1935\""));
    assert_eq!(
        told,
        ["tidecast.toml:1:17: webrtc.listen: is the same address as rtmp.listen; allowed: another port"]
    );

    for (http, rtmp, clash) in [
        ("127.0.0.1:80", "127.0.0.1:80", true),
        ("0.0.0.0:80", "127.0.0.1:80", true),
        ("[::1]:80", ":80", true),
        ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
        ("127.0.0.1:80", "127.0.0.2:80", false),
        ("0.0.0.0:80", "[::1]:80", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
    ] {
        let result = load(&format!("http.listen = \"{http}\"\nrtmp.listen = \"{rtmp}\""));
        assert_eq!(result.is_err(), clash, "{http} {rtmp}");
    }
}

#[test]
fn roles_are_sets_of_which_some_go_together() {
    let nats = "[cluster]\nnats = \"nats://10.0.0.1\"";
    let roles = |text: &str| load(&format!("roles = \"{text}\"\n{nats}")).map(|loaded| loaded.config.roles);
    let publishers = RoleSet { edge: false, ..RoleSet::ALL };
    for (text, meant) in [
        ("all", RoleSet::ALL),
        ("edge,origin, transcode, ingest", RoleSet::ALL),
        ("ingest, transcode, origin", publishers),
        ("ingest, origin", RoleSet { transcode: false, ..publishers }),
        ("ingest, origin, edge", RoleSet { transcode: false, ..RoleSet::ALL }),
        ("transcode", RoleSet { ingest: false, origin: false, transcode: true, edge: false }),
        ("edge, transcode", RoleSet { ingest: false, origin: false, ..RoleSet::ALL }),
        ("ingest", RoleSet { ingest: true, origin: false, transcode: false, edge: false }),
        ("origin", RoleSet { ingest: false, origin: true, transcode: false, edge: false }),
    ] {
        assert_eq!(roles(text).ok(), Some(meant), "{text}");
    }
    for (text, told) in [
        ("ingest", "who takes publishers and is no origin needs cluster.nats"),
        ("origin", "an origin without ingest needs cluster.nats"),
        ("transcode", "who encodes for other nodes needs cluster.nats"),
        ("viewer", "\"viewer\" is no role"),
        ("", "\"\" is no role"),
    ] {
        let problems = problems(load(&format!("roles = \"{text}\"")));
        assert!(problems[0].contains(told), "{problems:?}");
    }
}

#[test]
fn a_node_has_one_login_for_all_servers_of_nats() {
    let nats = |urls: &str| load(&format!("[cluster]\nnats = \"{urls}\""));
    let loaded = nats("nats://ada:c%40nary@a, nats://ada:c%40nary@b, nats://c").unwrap();
    assert_eq!(loaded.config.shown("cluster.nats").unwrap(), "nats://a:4222, nats://b:4222, nats://c:4222");
    for (urls, told) in [
        ("nats://ada:canary@a, nats://ada:canary2@b", "cluster.nats: names two users, or two passwords"),
        ("nats://ada:canary@a, nats://bob:canary@b", "cluster.nats: names two users, or two passwords"),
        ("nats://canary@a", "cluster.nats: \"nats://(hidden)@a\" has no user with a password"),
        (
            "nats://ada:canary@a\"\nnats_credentials = \"/etc/nats.creds",
            "cluster.nats_credentials: has a user, and so have the URLs in cluster.nats",
        ),
    ] {
        let problems = problems(nats(urls));
        assert!(problems[0].contains(told) && !problems[0].contains("canary"), "{problems:?}");
    }
    assert!(nats("nats://a\"\nnats_credentials = \"/etc/nats.creds").is_ok());
}

#[test]
fn an_edge_has_an_upstream_and_nothing_else_has() {
    let edge =
        load("roles = \"edge\"\nupstream = \"https://origin:7400\"\n[http]\nlisten = \":1935\"").unwrap();
    assert_eq!(edge.config.roles, RoleSet { ingest: false, origin: false, transcode: false, edge: true });
    assert_eq!(edge.config.upstream.unwrap().to_string(), "https://origin:7400");
    assert_eq!(
        problems(load("roles = \"edge\"")),
        ["tidecast.toml:1:9: roles: an edge needs an upstream, or cluster.nats to find one; set either"]
    );
    assert_eq!(
        problems(load("upstream = \"https://origin:7400\"")),
        ["tidecast.toml:1:12: upstream: only an edge has one; set roles = \"edge\" too"]
    );
    let told = problems(load("roles = \"edge\"\nupstream = \"http://origin\""));
    assert!(told[0].contains("\"http://origin\" is no URL of an upstream"), "{told:?}");
}

#[test]
fn addresses_and_servers_of_webrtc_are_lists() {
    let loaded =
        load("[webrtc]\npublic = \"203.0.113.7, 2001:db8::7\"\nice_servers = \"stun:a:1,turns:b\"").unwrap();
    assert_eq!(
        loaded.config.webrtc.public,
        ["203.0.113.7", "2001:db8::7"].map(|ip| ip.parse::<IpAddr>().unwrap())
    );
    assert_eq!(loaded.config.webrtc.ice_servers, ["stun:a:1", "turns:b"]);
    for wrong in [
        "public = \"cam.example\"",
        "ice_servers = \"https://a\"",
        "ice_servers = \"stun:\"",
        "ice_servers = \"stun:a>b\"",
        "stun = \"turn:a\"",
        "stun = \"stun:a, stun:b\"",
    ] {
        assert_eq!(problems(load(&format!("[webrtc]\n{wrong}"))).len(), 1, "{wrong}");
    }
    let asked = load("webrtc.stun = \"stun:stun.example:3478\"").unwrap();
    assert!(asked.show().contains("webrtc.stun = \"stun:stun.example\""), "{}", asked.show());
}

#[test]
fn the_secret_of_turn_servers_is_never_told() {
    let canary = "canary-north";
    let set = format!("[webrtc]\nice_servers = \"turn:a\"\nturn_secret = \"{canary}\"");
    let shown = load(&set).unwrap().show();
    assert!(shown.contains("webrtc.turn_secret = \"(hidden)\"") && !shown.contains(canary), "{shown}");
    for (others, secret) in
        [("", canary), ("ice_servers = \"stun:a\"", canary), ("ice_servers = \"turn:a\"", "canary")]
    {
        let told = problems(load(&format!("[webrtc]\n{others}\nturn_secret = \"{secret}\"")));
        assert!(told.len() == 1 && !told[0].contains(secret), "{told:?}");
    }
    let told = problems(load(&format!("[webrtc]\nturn_secret = \"{canary} \"")));
    assert!(told.len() == 1 && !told[0].contains(canary), "{told:?}");
}

#[test]
fn the_command_line_wins_over_everything() {
    let environment = environment([("TIDECAST__UPSTREAM", "https://a:1")]);
    let options = [("roles", "edge"), ("upstream", "https://b:2")];
    let loaded = Effective::load_with(None, &environment, &options).unwrap();
    assert_eq!(loaded.config.upstream.as_ref().unwrap().to_string(), "https://b:2");
    assert_eq!(loaded.origin("upstream").to_string(), "option --upstream");
    let told = problems(Effective::load_with(None, &Environment::empty(), &[("roles", "egde")]));
    assert!(told[0].starts_with("option --roles: roles: \"egde\" is no role"), "{told:?}");
}

#[test]
fn what_show_prints_can_be_loaded_again() {
    let loaded =
        load("http.listen = \"[::1]:80\"\ndata_dir = '/srv/a \"quoted\" dir'\nhls.profile = 'low'\nstreams.unlisted = 'a/b,c/*'").unwrap();
    let again = load(&loaded.show()).unwrap();
    for key in KEYS {
        assert_eq!((key.show)(&loaded.config), (key.show)(&again.config), "{}", key.name);
    }
}

#[test]
fn every_key_has_its_own_variable() {
    assert_eq!(Key::named("auth.publish_key").unwrap().variable(), "TIDECAST__AUTH__PUBLISH_KEY");
    let variables: std::collections::BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
    assert_eq!(variables.len(), KEYS.len());
}

#[test]
fn a_number_needs_no_quotes_and_has_bounds() {
    let connections = |text: &str| {
        load(&format!("[http]\nconnections_per_address = {text}\n")).map(|loaded| {
            (
                loaded.config.http.connections_per_address,
                loaded.show().contains("connections_per_address = 20000 "),
            )
        })
    };
    assert_eq!(connections("20000").unwrap(), (20_000, true));
    assert_eq!(connections("\"20000\"").unwrap(), (20_000, true));
    for wrong in ["5", "20001", "-6", "\"many\"", "6.5", "true"] {
        let told = problems(connections(wrong));
        assert_eq!(told.len(), 1, "{wrong}: {told:?}");
        assert!(told[0].contains("allowed: a number from 6 "), "{told:?}");
    }
}

#[test]
fn a_flag_needs_no_quotes_and_is_nothing_else() {
    let redirect = |text: &str| load(&format!("tls.self_signed = true\nhttp.redirect = {text}\n"));
    for (text, is_set) in [("true", true), ("\"true\"", true), ("false", false)] {
        assert_eq!(redirect(text).unwrap().config.http.redirect, is_set, "{text}");
    }
    for wrong in ["1", "\"yes\"", "[true]"] {
        let told = problems(redirect(wrong));
        assert!(told[0].ends_with("allowed: true or false"), "{told:?}");
    }
}

#[test]
fn there_is_one_certificate_and_everything_it_takes() {
    let source = |text: &str| load(text).unwrap().config.certificate_source();
    assert_eq!(source(""), None);
    assert_eq!(
        source("[tls]\ncertificate = \"/c.pem\"\nkey = \"/k.pem\""),
        Some(CertificateSource::Files { certificate: "/c.pem".into(), key: Some("/k.pem".into()) })
    );
    assert_eq!(source("tls.self_signed = true"), Some(CertificateSource::SelfSigned));
    for (text, words) in [
        (
            "tls.self_signed = true\ntls.certificate = \"/c.pem\"",
            "tls.self_signed: there is tls.certificate too",
        ),
        (
            "tls.self_signed = true\nacme = { domain = \"a.example\", terms_agreed = true }",
            "acme.domain: there is tls.self_signed too",
        ),
        ("tls.key = \"/k.pem\"", "tls.key: belongs to a certificate"),
        ("tls.certificate = \"c.pem\"", "tls.certificate: \"c.pem\" would be another directory"),
        ("acme.domain = \"a.example\"", "acme.domain: the authority signs only for who has agreed"),
        ("http.redirect = true", "http.redirect: there is no HTTPS to lead to"),
    ] {
        let told = problems(load(text));
        assert!(told.len() == 1 && told[0].contains(words), "{text}: {told:?}");
    }
}

#[test]
fn a_domain_moves_viewers_to_the_ports_of_the_web_unless_they_are_said_otherwise() {
    let domain = "[acme]\ndomain = \"Live.Example, www.live.example\"\nterms_agreed = true\n";
    let config = load(domain).unwrap().config;
    assert_eq!((config.http.listen.port(), config.https.listen.port()), (80, 443));
    let Some(CertificateSource::Acme(settings)) = config.certificate_source() else { panic!("no order") };
    assert_eq!(settings.names, ["live.example", "www.live.example"]);
    assert_eq!(settings.directory, "https://acme-v02.api.letsencrypt.org/directory");

    let config =
        load(&format!("{domain}directory = \"letsencrypt-staging\"\n[https]\nlisten = \":9443\"")).unwrap();
    assert_eq!((config.config.http.listen.port(), config.config.https.listen.port()), (80, 9443));
    let Some(CertificateSource::Acme(settings)) = config.config.certificate_source() else {
        panic!("no order")
    };
    assert!(settings.directory.starts_with("https://acme-staging-"), "{settings:?}");
}

#[test]
fn what_no_authority_could_check_is_refused() {
    let domain = |name: &str| load(&format!("[acme]\ndomain = \"{name}\"\nterms_agreed = true"));
    for good in ["a.example", "xn--bcher-kva.example", "a-b.c.example"] {
        assert!(domain(good).is_ok(), "{good}");
    }
    let long = format!("{}.example", "a".repeat(64));
    for wrong in [
        "localhost",
        "192.0.2.1",
        "a..example",
        "-a.example",
        "*.a.example",
        "a.example/x",
        "ü.example",
        &long,
    ] {
        assert_eq!(problems(domain(wrong)).len(), 1, "{wrong}");
    }
    for wrong in ["http://a.example/directory", "letsencrypt-test", "/directory"] {
        assert_eq!(problems(load(&format!("acme.directory = \"{wrong}\""))).len(), 1, "{wrong}");
    }
    for wrong in ["ada", "ada@localhost", "@a.example", "a da@a.example"] {
        assert_eq!(problems(load(&format!("acme.contact = \"{wrong}\""))).len(), 1, "{wrong}");
    }
}

/// Encrypted listeners are there only where there is a certificate; so are their clashes.
#[test]
fn a_port_that_nothing_encrypts_may_be_another_s() {
    assert!(load("http.listen = \":8443\"").is_ok());
    let told = problems(load("http.listen = \":8443\"\ntls.self_signed = true"));
    assert!(told[0].contains("http.listen: is the same address as https.listen"), "{told:?}");
}

mod sample {
    use super::*;

    const SAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tidecast.sample.toml"));

    /// `#key = …` is a setting to uncomment; `# words` explain it.
    fn uncommented() -> String {
        let uncomment = |line: &'static str| match line.strip_prefix('#') {
            Some(setting) if setting.starts_with(|char: char| char.is_ascii_lowercase()) => setting,
            _ => line,
        };
        SAMPLE.lines().map(|line| format!("{}\n", uncomment(line))).collect()
    }

    #[test]
    fn as_it_is_changes_nothing() {
        let loaded = load(SAMPLE).unwrap();
        assert!(KEYS.iter().all(|key| *loaded.origin(key.name) == Origin::Default));
    }

    #[test]
    fn holds_every_key_at_its_default() {
        // Uncommenting the publish key without choosing one must not give everybody the same key.
        let told = problems(load(&uncommented()));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("auth.publish_key: has 0 characters"), "{told:?}");

        let loaded =
            load(&uncommented().replace("publish_key = \"\"", "publish_key = \"chosen-by-an-operator\""))
                .unwrap();
        let defaults = Config::defaults(&Environment::empty());
        for key in KEYS {
            assert_ne!(*loaded.origin(key.name), Origin::Default, "{} is not in the sample", key.name);
            if key.name != "auth.publish_key" {
                assert_eq!((key.show)(&loaded.config), (key.show)(&defaults), "{}", key.name);
            }
        }
    }

    #[test]
    fn cut_off_anywhere_is_loaded_or_refused() {
        let text = uncommented();
        for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
            // Neither answer matters, only that there is one.
            let _ = load(&text[..end]);
        }
    }

    #[test]
    fn names_the_variable_of_every_key() {
        for key in KEYS {
            assert!(SAMPLE.contains(&key.variable()), "{}", key.variable());
        }
    }
}

#[test]
fn what_is_left_open_is_taken_from_the_cluster_and_nothing_else() {
    let mut loaded = load("hls.profile = \"low\"").unwrap();
    let of_cluster = [
        ("hls.profile", "default"),
        ("publish.linger", "7s"),
        ("publish.on_conflict", "perhaps"),
        ("rtmp.listen", ":1"),
        ("of.tomorrow", "yes"),
    ];
    loaded.take_from_cluster(of_cluster.into_iter().map(|(key, text)| (key, text, "a")));
    let shown = |key| (loaded.config.shown(key), loaded.origin(key).to_string());
    assert_eq!(shown("hls.profile"), (Some("low".to_owned()), "tidecast.toml:1:15".to_owned()));
    assert_eq!(shown("publish.linger"), (Some("7s".to_owned()), "cluster, set on a".to_owned()));
    assert_eq!(shown("publish.on_conflict"), (Some("refuse".to_owned()), "default".to_owned()));
    assert_eq!(shown("rtmp.listen"), (Some(":1935".to_owned()), "default".to_owned()));
    let passed_over: Vec<_> = loaded
        .passed_over
        .iter()
        .filter_map(|words| words.split_once(" of the cluster's settings"))
        .collect();
    let keys: Vec<_> = passed_over.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, ["publish.on_conflict", "rtmp.listen", "of.tomorrow"]);
}
