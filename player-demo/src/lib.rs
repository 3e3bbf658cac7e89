//! The web pages, as bytes ready to send.
//!
//! `npm run build` writes `dist/` from the TypeScript beside this file: pages, assets whose names carry their
//! content hash, and a `.gz` beside everything that compresses. This crate embeds that folder and knows no HTTP:
//! the server chooses between plain and gzip, and answers conditional requests with the ETags found here.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "dist"]
struct Dist;

/// The Content-Security-Policy of every page that only pages of this server may frame. `'unsafe-inline'` is for style
/// elements alone: media-chrome's components carry theirs inside their shadow roots. hls.js plays through `blob:` object
/// URLs.
const CONTENT_SECURITY_POLICY: &str = include_str!("../csp.txt").trim_ascii();

/// The same, but for the last word: everybody may frame it.
static CONTENT_SECURITY_POLICY_FRAMED: LazyLock<String> =
    LazyLock::new(|| CONTENT_SECURITY_POLICY.replace("frame-ancestors 'self'", "frame-ancestors *"));

/// That of the operator's page: everything is a file of its own, and nobody may frame it.
const CONTENT_SECURITY_POLICY_OPERATOR: &str = include_str!("../operator-csp.txt").trim_ascii();

/// Where the operator's page and all that it is made of lie, apart from what viewers' listeners serve.
const OPERATOR: &str = "operator/";

/// What is served below this path never changes and may be kept for ever.
const IMMUTABLE: &str = "assets/";

/// One file of the web pages.
#[derive(Clone, Debug)]
pub struct Asset {
    pub content_type: &'static str,
    pub bytes: Bytes,
    /// Strong, quoted.
    pub etag: String,
    /// The same content for `Content-Encoding: gzip`; none where compression gains nothing.
    pub gzip: Option<Gzip>,
    /// The name contains the content's hash: `Cache-Control: public, max-age=31536000, immutable`. Pages themselves
    /// are to be revalidated each time (`no-cache`).
    pub immutable: bool,
}

/// A compressed representation. Its ETag differs from the plain one, as strong ETags must (RFC 9110, section 8.8.3).
#[derive(Clone, Debug)]
pub struct Gzip {
    pub bytes: Bytes,
    pub etag: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/`: the list of live streams.
    Home,
    /// `/watch/{app}/{stream}`: the same bytes for every stream; the page reads its own address.
    Watch,
    /// `/embed/{app}/{stream}`: the player alone, for other people's pages.
    Embed,
    /// `/connect`: for broadcasters.
    Connect,
    /// `/trust`: what a certificate means that nobody vouches for.
    Trust,
    /// `/studio`: for those who broadcast with the browser itself.
    Studio,
    /// `/` of the admin listener: for whoever runs the node. Its assets are [`operator_asset`]s.
    Operator,
}

/// The asset at this URL path, with or without the leading slash (`/assets/…`). Pages have their own routes: they
/// come from [`page`], and their file names are not addresses.
pub fn get(path: &str) -> Option<Asset> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if !path.starts_with(IMMUTABLE) || path.ends_with(".gz") {
        return None;
    }
    load(path)
}

/// As [`get`], of the operator's page: for the admin listener alone.
pub fn operator_asset(path: &str) -> Option<Asset> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if !path.starts_with(IMMUTABLE) || path.ends_with(".gz") {
        return None;
    }
    Some(Asset { immutable: true, ..load(&format!("{OPERATOR}{path}"))? })
}

/// The HTML of one page.
pub fn page(page: Page) -> Asset {
    let file = match page {
        Page::Home => "index.html",
        Page::Watch => "watch.html",
        Page::Embed => "embed.html",
        Page::Connect => "connect.html",
        Page::Trust => "trust.html",
        Page::Studio => "studio.html",
        Page::Operator => "operator/operator.html",
    };
    load(file).expect("build.rs saw every page in dist/")
}

/// The Content-Security-Policy to send with a page.
pub fn content_security_policy(page: Page) -> &'static str {
    match page {
        Page::Embed => &CONTENT_SECURITY_POLICY_FRAMED,
        Page::Operator => CONTENT_SECURITY_POLICY_OPERATOR,
        Page::Home | Page::Watch | Page::Connect | Page::Studio | Page::Trust => CONTENT_SECURITY_POLICY,
    }
}

fn load(path: &str) -> Option<Asset> {
    let plain = Dist::get(path)?;
    let gzip = Dist::get(&format!("{path}.gz")).map(|file| Gzip { etag: etag(&file), bytes: bytes(file) });
    Some(Asset {
        content_type: content_type(path)?,
        etag: etag(&plain),
        bytes: bytes(plain),
        gzip,
        immutable: path.starts_with(IMMUTABLE),
    })
}

fn bytes(file: EmbeddedFile) -> Bytes {
    match file.data {
        Cow::Borrowed(data) => Bytes::from_static(data),
        Cow::Owned(data) => Bytes::from(data),
    }
}

fn etag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// The types the build makes; a file of any other kind is not part of the pages.
fn content_type(path: &str) -> Option<&'static str> {
    let (_, extension) = path.rsplit_once('.')?;
    Some(match extension {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Those of viewers' listeners.
    const PAGES: [Page; 6] = [Page::Home, Page::Watch, Page::Embed, Page::Connect, Page::Studio, Page::Trust];

    /// Every `href="/assets/…"` and `src="/assets/…"` of a page.
    fn assets_named_by(page: &Asset) -> Vec<String> {
        let html = std::str::from_utf8(&page.bytes).expect("pages are UTF-8");
        html.split('"').filter(|text| text.starts_with("/assets/")).map(str::to_owned).collect()
    }

    #[test]
    fn every_asset_a_page_names_exists_and_may_be_cached_for_ever() {
        for page in PAGES.map(page) {
            let named = assets_named_by(&page);
            for kind in [".js", ".css", ".svg"] {
                assert!(named.iter().any(|path| path.ends_with(kind)), "no {kind} in {named:?}");
            }
            for path in named {
                assert!(get(&path).is_some_and(|asset| asset.immutable), "{path} is missing");
            }
        }
    }

    #[test]
    fn pages_are_revalidated_because_they_name_the_newest_assets() {
        assert!(PAGES.map(page).iter().all(|page| !page.immutable));
    }

    #[test]
    fn nothing_but_assets_has_an_address_of_its_own() {
        let compressed = Dist::iter().find(|path| path.starts_with(IMMUTABLE) && path.ends_with(".gz"));
        let compressed = compressed.expect("the build compresses its assets");
        for path in ["/index.html", "watch.html", "/", "/assets/", "/assets/../index.html", &compressed] {
            assert!(get(path).is_none(), "{path} was served");
        }
    }

    /// Viewers' listeners serve whatever [`get`] finds.
    #[test]
    fn what_the_operators_page_is_made_of_is_nothing_that_viewers_get() {
        let named = assets_named_by(&page(Page::Operator));
        for kind in [".js", ".css", ".svg"] {
            assert!(named.iter().any(|path| path.ends_with(kind)), "no {kind} in {named:?}");
        }
        for path in named.iter().filter(|path| !path.ends_with(".svg")) {
            assert!(operator_asset(path).is_some_and(|asset| asset.immutable), "{path} is missing");
            assert!(get(path).is_none(), "{path} is viewers' too");
        }
        for path in
            ["/operator/operator.html", "/operator.html", "operator/assets/", "/assets/../operator.html"]
        {
            assert!(get(path).is_none() && operator_asset(path).is_none(), "{path} was served");
        }
        let own = Dist::iter().find(|path| path.starts_with("operator/assets/") && path.ends_with(".js"));
        let own = own.expect("the page has a script");
        assert!(get(&own).is_none() && get(&format!("/{own}")).is_none(), "{own} was served");
    }

    #[test]
    fn scripts_and_styles_carry_the_types_browsers_insist_on() {
        let mut seen = Vec::new();
        for path in Dist::iter().filter(|path| path.starts_with(IMMUTABLE) && !path.ends_with(".gz")) {
            let asset = get(&path).expect("every asset has a known type");
            match path.rsplit_once('.') {
                Some((_, "js")) => assert_eq!(asset.content_type, "text/javascript; charset=utf-8"),
                Some((_, "css")) => assert_eq!(asset.content_type, "text/css; charset=utf-8"),
                Some((_, "svg")) => assert_eq!(asset.content_type, "image/svg+xml"),
                _ => continue,
            }
            seen.push(path.into_owned());
        }
        assert!(seen.len() >= 5, "{seen:?}");
    }

    #[test]
    fn the_compressed_form_is_the_same_content_under_another_etag() {
        let watch = page(Page::Watch);
        let gzip = watch.gzip.expect("pages are compressed");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&gzip.bytes[..]).read_to_end(&mut unpacked).expect("valid gzip");
        assert_eq!(unpacked, watch.bytes);
        assert_ne!(gzip.etag, watch.etag);
        assert!(gzip.etag.starts_with('"') && gzip.etag.ends_with('"'), "{}", gzip.etag);
    }

    /// Threat: another site frames the page where a key is typed.
    #[test]
    fn only_the_embedded_player_may_be_framed_by_others() {
        for page in [Page::Home, Page::Watch, Page::Connect, Page::Studio, Page::Trust] {
            assert!(content_security_policy(page).ends_with("; frame-ancestors 'self'"), "{page:?}");
        }
        let framed = content_security_policy(Page::Embed);
        assert!(framed.ends_with("; frame-ancestors *"), "{framed}");
        assert_eq!(framed.replace('*', "'self'"), content_security_policy(Page::Watch));
    }

    /// The policy forbids inline scripts, handlers and style attributes, so a page must have none.
    #[test]
    fn pages_obey_their_own_content_security_policy() {
        assert!(CONTENT_SECURITY_POLICY.contains("script-src 'self';"));
        assert!(!CONTENT_SECURITY_POLICY.contains('\n'), "a header value is one line");
        assert!(!CONTENT_SECURITY_POLICY_OPERATOR.contains('\n'), "a header value is one line");
        assert!(!CONTENT_SECURITY_POLICY_OPERATOR.contains("unsafe"), "{CONTENT_SECURITY_POLICY_OPERATOR}");
        for page in PAGES.into_iter().chain([Page::Operator]).map(page) {
            let html = std::str::from_utf8(&page.bytes).expect("pages are UTF-8");
            for forbidden in [" style=", "<style", " onclick=", "<script>"] {
                assert!(!html.contains(forbidden), "{forbidden} in a page");
            }
        }
    }
}
