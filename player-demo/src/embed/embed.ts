// The player alone, in a frame of somebody else's page: the stage, and nothing around it.

import "../base.css";
import "../watch/stage.css";
import "./embed.css";
import { nameFromPath } from "../api.ts";
import { setText } from "../dom.ts";
import { openStage } from "../watch/stage.ts";

const name = nameFromPath(location.pathname) ?? { app: "", stream: "" };
document.title = `${name.stream} · Tidecast`;
setText("name", `${name.app}/${name.stream}`);
openStage(name, {});
