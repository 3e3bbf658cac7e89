//! The life of a cluster, by its files.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn name(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn files(home: &tempfile::TempDir, dir: &str) -> ClusterFiles {
    ClusterFiles::new(home.path().join(dir))
}

#[test]
fn a_node_joins_with_a_bundle_and_is_who_it_was_invited_as() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge) = (files(&home, "origin"), files(&home, "edge"));
    assert!(origin.identity().unwrap().is_none());
    origin.init(&name("origin")).unwrap();
    assert_eq!(origin.identity().unwrap().unwrap().node(), &name("origin"));

    let bundle = origin.invite(&name("edge1"), BUNDLED_DAYS).unwrap();
    assert_eq!(edge.join(&bundle).unwrap(), name("edge1"));
    assert_eq!(edge.identity().unwrap().unwrap().node(), &name("edge1"));
    assert!(
        edge.invite(&name("edge2"), BUNDLED_DAYS)
            .unwrap_err()
            .to_string()
            .contains("where the cluster was made")
    );
    // Renewed before it expires.
    assert_eq!(edge.join(&origin.invite(&name("edge1"), BUNDLED_DAYS).unwrap()).unwrap(), name("edge1"));
}

#[test]
fn keys_are_private() {
    let home = tempfile::tempdir().unwrap();
    let origin = files(&home, "origin");
    origin.init(&name("origin")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(origin.dir()), 0o700);
    for key in [AUTHORITY_KEY, KEY] {
        assert_eq!(mode(&origin.path(key)), 0o600, "{key}");
    }
    let unfinished = fs::read_dir(origin.dir())
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "new"));
    assert_eq!(unfinished.count(), 0, "nothing unfinished stays");
}

#[test]
fn a_member_is_not_made_one_of_another_cluster_by_mistake() {
    let home = tempfile::tempdir().unwrap();
    let (one, other) = (files(&home, "one"), files(&home, "other"));
    one.init(&name("origin")).unwrap();
    other.init(&name("origin")).unwrap();
    for refused in
        [one.init(&name("origin")), one.join(&other.invite(&name("edge1"), BUNDLED_DAYS).unwrap()).map(drop)]
    {
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("in a cluster already"), "{told}");
    }
    assert_eq!(one.identity().unwrap().unwrap().node(), &name("origin"));
}

#[test]
fn what_is_no_bundle_is_refused_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge) = (files(&home, "origin"), files(&home, "edge"));
    origin.init(&name("origin")).unwrap();
    let bundle = origin.invite(&name("edge1"), BUNDLED_DAYS).unwrap();
    let swapped: Vec<_> = pem_blocks(&bundle).into_iter().rev().collect();
    let stranger = files(&home, "stranger");
    stranger.init(&name("origin")).unwrap();
    let foreign =
        [&pem_blocks(&bundle)[..2], &pem_blocks(&stranger.invite(&name("x"), BUNDLED_DAYS).unwrap())[2..]]
            .concat();
    for wrong in
        ["", "-----BEGIN KEY-----", &bundle[..bundle.len() / 2], &swapped.concat(), &foreign.concat()]
    {
        assert!(edge.join(wrong).is_err(), "{wrong}");
        assert!(!edge.dir().exists());
    }
}

fn token(authority: &ClusterFiles, node: Option<&str>) -> Token {
    let node = node.map(name);
    authority.token(node.as_ref(), Duration::from_secs(60), vec!["192.0.2.1:7400".to_owned()]).unwrap()
}

/// What becomes of a machine that shows a token and would be called `wanted`.
fn join(
    authority: &ClusterFiles,
    machine: &ClusterFiles,
    token: &Token,
    wanted: Option<&str>,
) -> Result<NodeId, LetInError> {
    let wanted = wanted.map(name);
    let (key, request) = machine.prepare_to_join(token, wanted.as_ref()).unwrap();
    let (named, granted) = authority.let_in(&request)?;
    assert_eq!(machine.finish_joining(token, &key, &granted).unwrap(), named);
    Ok(named)
}

fn init(home: &tempfile::TempDir) -> ClusterFiles {
    let origin = files(home, "origin");
    origin.init(&name("origin")).unwrap();
    origin
}

#[test]
fn a_token_lets_in_once_and_the_key_stays_where_it_was_made() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge) = (init(&home), files(&home, "edge"));
    let named = token(&origin, Some("edge1"));
    let wrong = join(&origin, &edge, &named, Some("edge2")).unwrap_err();
    assert!(matches!(wrong, LetInError::OtherName(_)), "{wrong}");
    assert_eq!(join(&origin, &edge, &named, None).unwrap(), name("edge1"));
    assert_eq!(edge.identity().unwrap().unwrap().node(), &name("edge1"));
    assert!(!edge.has_authority());
    let again = join(&origin, &files(&home, "again"), &named, None).unwrap_err();
    assert!(matches!(again, LetInError::Token(TokenError::Used)), "{again}");
    assert!(!files(&home, "again").dir().exists(), "who was refused has nothing");
}

/// Threat: who holds a token for anybody takes the name of a node that is there.
#[test]
fn a_token_for_anybody_makes_nobody_who_is_there() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge) = (init(&home), files(&home, "edge"));
    let anybody = token(&origin, None);
    for (wanted, why) in [(Some("origin"), "there has been a node"), (None, "--name")] {
        let told = join(&origin, &edge, &anybody, wanted).unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(join(&origin, &edge, &anybody, Some("edge7")).unwrap(), name("edge7"));
}

#[test]
fn what_is_no_request_is_refused_in_words_and_the_token_stays_good() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge) = (init(&home), files(&home, "edge"));
    let token = token(&origin, Some("edge1"));
    let (_, good) = edge.prepare_to_join(&token, None).unwrap();
    let good: JoinRequest = serde_json::from_str(&good).unwrap();
    let with = |request: String| {
        let shown = token.show(&asked(None, &request));
        serde_json::to_string(&JoinRequest { shown, node: None, request }).unwrap()
    };
    let of_another_kind = with(good.request.replace("BEGIN CERTIFICATE REQUEST", "BEGIN CERTIFICATE"));
    let damaged = with(good.request.replace("MI", "MJ"));
    for wrong in ["", "{}", &of_another_kind, &damaged] {
        let refused = origin.let_in(wrong).unwrap_err();
        assert!(matches!(refused, LetInError::Malformed(_)), "{refused}");
    }
    join(&origin, &edge, &token, None).unwrap();
}

/// Threat: a node of the cluster answers in the authority's place, and asks for itself with what it was shown.
#[test]
fn what_one_machine_has_shown_lets_no_other_in() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge, thief) = (init(&home), files(&home, "edge"), files(&home, "thief"));
    let token = token(&origin, Some("edge1"));
    let (_, heard) = edge.prepare_to_join(&token, None).unwrap();
    let (_, own) = thief.prepare_to_join(&token, None).unwrap();
    let [heard, own]: [JoinRequest; 2] = [heard, own].map(|text| serde_json::from_str(&text).unwrap());
    let stolen = JoinRequest { shown: heard.shown, ..own };
    let refused = origin.let_in(&serde_json::to_string(&stolen).unwrap()).unwrap_err();
    assert!(matches!(refused, LetInError::Token(TokenError::Unknown)), "{refused}");
    join(&origin, &edge, &token, None).unwrap();
}

/// Threat: the node that is asked for a new certificate asks for one of its own, with our request.
#[test]
fn a_renewal_does_not_change_who_a_node_is() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge) = (init(&home), files(&home, "edge"));
    join(&origin, &edge, &token(&origin, Some("edge1")), None).unwrap();
    let of_another = origin.renew(&name("edge2"), &edge.renewal().unwrap()).unwrap();
    let told = edge.finish_renewal(&of_another).unwrap_err().to_string();
    assert_eq!(told, "the answer is a certificate of edge2");
    assert_eq!(edge.identity().unwrap().unwrap().node(), &name("edge1"));
}

/// Of before it was written down who was let in.
#[test]
fn in_an_older_cluster_names_are_given_by_tokens_alone() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge) = (init(&home), files(&home, "edge"));
    fs::remove_file(origin.path(ISSUED)).unwrap();
    let refused = join(&origin, &edge, &token(&origin, None), Some("edge7")).unwrap_err();
    assert!(matches!(refused, LetInError::Taken(_)), "{refused}");
    join(&origin, &edge, &token(&origin, Some("edge7")), None).unwrap();
    origin.rotate().unwrap();
    let told = origin.finish_rotation(false).unwrap_err().to_string();
    assert!(told.contains("older than the list"), "{told}");
    origin.finish_rotation(true).unwrap();
}

#[test]
fn who_was_put_out_is_trusted_nowhere_and_gets_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge, other) = (init(&home), files(&home, "edge"), files(&home, "other"));
    join(&origin, &edge, &token(&origin, Some("edge1")), None).unwrap();
    join(&origin, &other, &token(&origin, Some("edge2")), None).unwrap();
    let early = token(&origin, Some("edge1"));
    assert!(origin.revoke(&name("edge1")).unwrap());
    let list = origin.trust().unwrap().unwrap();
    assert!(other.adopt(&list.text).unwrap(), "newer");
    assert!(!other.adopt(&list.text).unwrap(), "known");
    assert!(other.trust().unwrap().unwrap().list.revoked().contains(&name("edge1")));
    edge.adopt(&list.text).unwrap();
    let told = edge.identity().map(drop).unwrap_err().to_string();
    assert!(told.contains("was put out of the cluster"), "{told}");
    assert!(matches!(origin.renew(&name("edge1"), &edge.renewal().unwrap()), Err(LetInError::Revoked(_))));
    let told = join(&origin, &files(&home, "again"), &early, None).unwrap_err();
    assert!(matches!(told, LetInError::Revoked(_)), "{told}");
    assert!(origin.invite(&name("edge1"), 1).is_err());
    assert!(origin.revoke(&name("origin")).is_err(), "nobody would be left");
}

#[test]
fn roots_change_in_two_steps_and_whoever_renews_in_between_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (origin, edge, late) = (init(&home), files(&home, "edge"), files(&home, "late"));
    join(&origin, &edge, &token(&origin, Some("edge1")), None).unwrap();
    join(&origin, &late, &token(&origin, Some("late")), None).unwrap();
    assert!(edge.validity().unwrap().is_of_newest_root);
    assert!(origin.finish_rotation(true).is_err(), "there is but one");

    origin.rotate().unwrap();
    assert!(origin.rotate().is_err(), "one at a time");
    assert!(origin.validity().unwrap().is_of_newest_root);
    let own = origin.own().unwrap();
    // Who knows but the old root trusts what the new one has signed.
    let [old_root, ..] = late.own().unwrap();
    Identity::from_pem(old_root.as_bytes(), own[1].as_bytes(), own[2].as_bytes()).unwrap();

    edge.adopt(&origin.trust().unwrap().unwrap().text).unwrap();
    assert!(!edge.validity().unwrap().is_of_newest_root, "due");
    edge.finish_renewal(&origin.renew(&name("edge1"), &edge.renewal().unwrap()).unwrap()).unwrap();
    assert!(edge.validity().unwrap().is_of_newest_root);

    // One that is of the new root is put out all the same.
    let stolen = files(&home, "stolen");
    join(&origin, &stolen, &token(&origin, Some("stolen")), None).unwrap();
    origin.revoke(&name("stolen")).unwrap();

    let told = origin.finish_rotation(false).unwrap_err().to_string();
    assert!(told.contains("still of the old root: late."), "{told}");
    origin.finish_rotation(true).unwrap();
    let last = origin.trust().unwrap().unwrap();
    assert_eq!((last.list.roots.len(), last.list.revoked()), (1, BTreeSet::from([name("stolen")])));
    assert!(matches!(origin.renew(&name("stolen"), &stolen.renewal().unwrap()), Err(LetInError::Revoked(_))));
    for node in [&edge, &late] {
        node.adopt(&last.text).unwrap();
    }
    edge.identity().unwrap().unwrap();
    assert!(late.identity().is_err(), "it has slept through it");
    // And who joins now is of the new root.
    let newcomer = files(&home, "new");
    join(&origin, &newcomer, &token(&origin, Some("new")), None).unwrap();
    assert_eq!(pem_blocks(&newcomer.own().unwrap()[0]), last.list.roots);
}
