// What the pages have that their types do not tell: what the scripts leave there for their next step, and the elements they find.
interface Window {
  [name: string]: any;
}

interface Element {
  [name: string]: any;
}

interface PerformanceEntry {
  nextHopProtocol?: string;
}
