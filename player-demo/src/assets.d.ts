// Files the bundler turns into their hashed address, or into the page's stylesheet.
declare module "hls.js/dist/hls.worker.js" {
  const address: string;
  export default address;
}
declare module "*.css";
