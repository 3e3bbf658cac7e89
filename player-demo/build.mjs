// Builds dist/: the pages, their hashed assets, and a .gz beside everything that compresses.
// `node build.mjs --tests` bundles the unit tests into test/out/unit instead, so that they run on any Node.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

process.chdir(dirname(fileURLToPath(import.meta.url)));

const PAGES = {
  "index.html": "src/home/index.html",
  "watch.html": "src/watch/watch.html",
  "embed.html": "src/embed/embed.html",
  "connect.html": "src/connect/connect.html",
  "trust.html": "src/trust/trust.html",
  "studio.html": "src/studio/studio.html",
};
/** Apart from the others, since only the admin listener serves it; nothing of it is viewers' to fetch. */
const OPERATOR_PAGES = { "operator.html": "src/operator/operator.html" };
const COMPRESSIBLE = new Set([".html", ".js", ".css", ".svg", ".txt"]);

await (process.argv.includes("--tests") ? buildTests() : buildPages());

async function buildTests() {
  const tests = (await readdir("test/unit")).filter((name) => name.endsWith(".test.mjs"));
  await rm("test/out/unit", { recursive: true, force: true });
  await build({
    entryPoints: tests.map((name) => join("test/unit", name)),
    outdir: "test/out/unit",
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    format: "esm",
    logLevel: "warning",
  });
}

async function buildPages() {
  await rm("dist", { recursive: true, force: true });
  const scripts = ["home", "watch", "embed", "connect", "trust", "studio"];
  await buildSite("dist", PAGES, scripts);
  await buildSite("dist/operator", OPERATOR_PAGES, ["operator"]);
  await compress("dist");
}

/** Pages in `folder`, and what they are made of in `folder`/assets: at `/assets/` of whoever serves the folder. */
async function buildSite(folder, pages, scripts) {
  const { metafile } = await build({
    entryPoints: Object.fromEntries(scripts.map((name) => [name, `src/${name}/${name}.ts`])),
    outdir: `${folder}/assets`,
    entryNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
    publicPath: "/assets",
    chunkNames: "shared-[hash]",
    bundle: true,
    minify: true,
    format: "esm",
    // What two pages use, the player above all, is one file for both.
    splitting: true,
    target: ["chrome109", "firefox115", "safari16.4"],
    // hls.js runs its demuxer in a worker; as a file of its own it needs no blob: in worker-src.
    loader: { ".worker.js": "file" },
    legalComments: "none",
    metafile: true,
    logLevel: "warning",
  });

  // What a page writes as {{watch.js}} becomes the hashed address of that file.
  const addresses = new Map([["favicon.svg", await emitHashed(folder, "src/favicon.svg")]]);
  for (const path of Object.keys(metafile.outputs)) {
    addresses.set(basename(path).replace(/-[A-Z0-9]{8}\./, "."), `/assets/${basename(path)}`);
  }
  const texts = await licenses(metafile);
  if (texts) addresses.set("licenses.txt", await emitHashed(folder, "licenses.txt", texts));

  for (const [name, template] of Object.entries(pages)) {
    const source = (await readFile(template, "utf8")).replace(/^ *<script type="module" src="\{\{(.+?)\.js\}\}">/m, (script, entry) =>
      [...preloads(metafile, entry), script].join("\n"),
    );
    const html = source.replace(/\{\{(.+?)\}\}/g, (_, asset) => {
      const address = addresses.get(asset);
      if (!address) throw new Error(`${template} names {{${asset}}}, which the build did not make`);
      return address;
    });
    await writeFile(join(folder, name), html);
  }
}

/** The shared files of a page, told in its head: else the browser would learn of them only from its script. */
function preloads(metafile, entry) {
  const outputs = Object.entries(metafile.outputs);
  const [, { imports }] = outputs.find(([path]) => basename(path).startsWith(`${entry}-`) && path.endsWith(".js"));
  const shared = imports.filter(({ kind }) => kind === "import-statement");
  return shared.map(({ path }) => `    <link rel="modulepreload" href="/assets/${basename(path)}">`);
}

/** Writes one file under its content hash and returns its address. */
async function emitHashed(folder, source, content) {
  const bytes = content ?? (await readFile(source));
  const hash = createHash("sha256").update(bytes).digest("hex").slice(0, 8).toUpperCase();
  const extension = extname(source);
  const name = `${basename(source, extension)}-${hash}${extension}`;
  await mkdir(join(folder, "assets"), { recursive: true });
  await writeFile(join(folder, "assets", name), bytes);
  return `/assets/${name}`;
}

/** The licence texts of the packages that are really in the bundles: MIT and Apache-2.0 both ask for them. */
async function licenses(metafile) {
  const packages = new Set();
  for (const input of Object.keys(metafile.inputs)) {
    const match = input.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//);
    if (match) packages.add(match[1]);
  }
  const texts = [];
  for (const name of [...packages].sort()) {
    const root = join("node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    const file = (await readdir(root)).find((entry) => /^licen[sc]e/i.test(entry));
    if (!file) throw new Error(`${name} ships no licence text`);
    texts.push(`${name} ${version} (${license})\n\n${(await readFile(join(root, file), "utf8")).trim()}\n`);
  }
  return texts.join(`\n${"-".repeat(80)}\n\n`);
}

async function compress(folder) {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await compress(path);
    else if (COMPRESSIBLE.has(extname(path))) {
      await writeFile(`${path}.gz`, gzipSync(await readFile(path), { level: 9 }));
    }
  }
}
