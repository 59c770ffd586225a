// The page: takes videos, follows a job, shows its verdict, lists the others. The job on show is the address's #id.
"use strict";

const STAGES = ["uploading", "waiting", "reading", "scoring", "explaining"];
const DELETING = "Delete this result and its report? The video is gone already.";
const POLL_MS = 2000, PAGE = 20;
const $ = (id) => document.getElementById(id);
const active = (job) => job.status === "queued" || job.status === "running";

let server = null;  // what it takes
let upload = null;  // the request under way
let shown = null;  // id of the job on show
let events = null, timer = null, listTimer = null, announced = "";

// ---- talking to the server

async function call(path, method = "GET") {
  let answer;
  try {
    answer = await fetch(path, {method});
  } catch {
    throw new Error("The server cannot be reached. Is it still running?");
  }
  if (answer.status === 401) location.assign("/login");
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(sentence(body.message || answer.statusText)), {status: answer.status});
  return body;
}

function send(file, onProgress) {
  return new Promise((resolve, reject) => {
    const form = new FormData(), request = new XMLHttpRequest();
    form.append("file", file, file.name);
    request.open("POST", "/v1/score");
    request.upload.onprogress = (event) => onProgress(event.total ? event.loaded / event.total : 0);
    request.onload = () => {
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { /* said below */ }
      if (request.status === 202) resolve(body);
      else if (request.status === 401) location.assign("/login");
      else reject(new Error(sentence(body.message || `The server answered ${request.status}`)));
    };
    request.onerror = () => reject(new Error("The upload was broken off: the server cannot be reached, or refused it."));
    request.onabort = () => reject(null);
    request.send(form);
    upload = request;
  });
}

// ---- words

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "";
}

function size(bytes) {
  const mib = bytes / 1048576;
  return mib < 1 ? `${Math.max(1, Math.round(bytes / 1024))} KiB` : mib < 1024 ? `${Math.round(mib)} MiB`
    : `${(mib / 1024).toFixed(1)} GiB`;
}

function hours(count) {
  if (count < 1) return `${Math.max(1, Math.round(count * 60))} minutes`;
  return count === 1 ? "an hour" : count < 48 ? `${Math.round(count)} hours` : `${Math.round(count / 24)} days`;
}

const percent = (share) => `${Math.round(share * 100)} %`;

function now(stage, job) {
  if (stage === "waiting") {
    return job.queue_position > 1 ? `Waiting: ${job.queue_position - 1} before it` : "Waiting: it is next";
  }
  return {
    starting: "Loading the model", reading: "Opening the file", scoring: `Scoring: ${percent(job.progress)} of the video`,
    explaining: "Drawing the report",
  }[stage] || "";
}

// ---- parts of the page

function element(tag, text, values = {}) {
  const made = Object.assign(document.createElement(tag), values);
  if (text) made.textContent = text;
  return made;
}

function problem(box, text) {
  box.hidden = !text;
  box.textContent = text || "";
}

function announce(text) {
  if (text !== announced) $("announce").textContent = announced = text;
}

function stages(current, share, text) {
  const step = current === "starting" ? "reading" : current, at = STAGES.indexOf(step);
  $("stages").hidden = $("meter").hidden = at < 0;
  for (const item of $("stages").children) {
    const place = STAGES.indexOf(item.dataset.stage);
    item.classList.toggle("past", place < at);
    if (place === at) item.setAttribute("aria-current", "step"); else item.removeAttribute("aria-current");
  }
  const known = current === "uploading" || current === "scoring";
  $("meter").classList.toggle("waits", !known);
  $("meter").firstElementChild.style.width = known ? `${100 * share}%` : "";
  if (known) $("meter").setAttribute("aria-valuenow", Math.round(100 * share));
  else $("meter").removeAttribute("aria-valuenow");
  $("job-now").textContent = text;
  if (at >= 0) announce({uploading: "Uploading", waiting: "Waiting", reading: "Reading", scoring: "Scoring",
    explaining: "Drawing the report"}[step]);
}

function section(id) {
  $("start").hidden = id !== "start";
  $("job").hidden = id !== "job";
}

function blankJob(name) {
  section("job");
  $("history").hidden = true;
  $("job-name").textContent = document.title = name;
  for (const id of ["verdict", "links", "report", "cancel", "delete"]) $(id).hidden = true;
  $("report").removeAttribute("src");
  problem($("job-problem"), "");
  stages("", 0, "");
}

function showVerdict(job) {
  const said = job.verdict, box = $("verdict");
  box.querySelector(".word").textContent = said.title;
  box.querySelector(".reason").textContent = sentence(said.reason);
  box.querySelector(".limit").textContent = said.limit;
  box.hidden = false;
  announce(`${said.title}. ${sentence(said.reason)} ${said.limit}`);
}

function show(job) {
  $("job-name").textContent = job.name;
  document.title = `${job.name} – avdetect`;
  $("cancel").hidden = !active(job);
  if (active(job)) {
    stages(job.stage, job.progress, now(job.stage, job));
    return;
  }
  stages("", 0, "");
  $("links").hidden = $("delete").hidden = false;
  $("report-link").hidden = $("json-link").hidden = job.status !== "done";
  if (job.status === "done") {
    showVerdict(job);
    $("report-link").href = job.urls.report;
    $("json-link").href = job.urls.result;
    if ($("report").getAttribute("src") !== job.urls.report) $("report").src = job.urls.report;
    $("report").hidden = false;
  } else if (job.status === "failed") {
    problem($("job-problem"), sentence(job.error.message));
  } else {
    $("job-now").textContent = "Cancelled. The video is deleted.";
    announce("Cancelled");
  }
}

// ---- following a job

function unfollow() {
  if (events) events.close();
  clearTimeout(timer);
  events = timer = null;
}

function follow(id) {
  unfollow();
  events = new EventSource(`/v1/jobs/${encodeURIComponent(id)}/events`);
  events.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    if (shown !== id) return;
    show(job);
    if (!active(job)) unfollow();
  });
  events.addEventListener("gone", () => { unfollow(); gone("It was deleted."); });
  events.onerror = () => { unfollow(); if (shown === id) timer = setTimeout(() => poll(id), POLL_MS); };
}

async function poll(id) {
  try {
    const job = await call(`/v1/jobs/${encodeURIComponent(id)}`);
    if (shown !== id) return;
    problem($("job-problem"), "");
    show(job);
    if (active(job)) follow(id);
  } catch (error) {
    if (shown !== id) return;
    if (error.status === 404) { gone(error.message); return; }
    problem($("job-problem"), error.message);
    timer = setTimeout(() => poll(id), POLL_MS);
  }
}

function gone(message) {
  blankJob("No such video");
  problem($("job-problem"), message);
}

// ---- taking videos

async function take(files) {
  if (upload || !files.length) return;
  const large = server && [...files].find((file) => file.size > server.max_upload_bytes);
  if (large) {
    problem($("start-problem"), `${large.name} is larger (${size(large.size)}) than this server takes `
      + `(${size(server.max_upload_bytes)}).`);
    return;
  }
  problem($("start-problem"), "");
  try {
    let job = null;
    for (const [index, file] of [...files].entries()) job = await one(file, index, files.length);
    upload = null;
    if (files.length === 1) location.hash = job.id; else goHome();
  } catch (error) {
    upload = null;
    goHome(error ? error.message : "");
  }
}

async function one(file, index, count) {
  blankJob(file.name);
  document.querySelector(".back").hidden = true;  // the upload ends with Cancel
  $("cancel").hidden = false;
  $("job-name").focus();
  const which = count > 1 ? ` (${index + 1} of ${count})` : "";
  const report = (share) => stages("uploading", share, `Uploading${which}: ${percent(share)} of ${size(file.size)}`);
  report(0);
  return send(file, report);
}

// ---- the list

function entry(job) {
  const item = element("li");
  const words = job.status === "running" ? (job.stage === "scoring" ? `scoring ${percent(job.progress)}` : "starting")
    : job.status === "queued" ? "waiting" : job.verdict ? job.verdict.tag : job.status;
  const remove = element("button", active(job) ? "Cancel" : "Delete", {className: "quiet"});
  remove.setAttribute("aria-label", `${remove.textContent} ${job.name}`);
  remove.addEventListener("click", () => (active(job) || confirm(DELETING)) && act(active(job) ? [job.urls.cancel, "POST"] : [job.urls.self, "DELETE"]));
  const made = new Date(job.created_at);
  item.append(
    element("a", job.name, {href: `#${job.id}`}),
    element("time", made.toLocaleString([], {dateStyle: "medium", timeStyle: "short"}), {dateTime: job.created_at}),
    element("span", words, {className: `tag ${job.verdict ? `tone-${job.verdict.tone}` : job.status}`}), remove);
  return item;
}

async function act([path, method]) {
  try {
    await call(path, method);
  } catch (error) {
    problem($("start-problem"), error.message);
  }
  await list();
}

async function list(before = null) {
  clearTimeout(listTimer);
  let page;
  try {
    page = await call(`/v1/jobs?limit=${PAGE}${before ? `&before=${before}` : ""}`);
  } catch (error) {
    problem($("start-problem"), error.message);
    return;
  }
  if ($("start").hidden) return;
  const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
  const entries = page.jobs.map(entry);
  if (before) $("jobs").append(...entries); else $("jobs").replaceChildren(...entries);
  if (focused) {  // the list is drawn anew: who is on a button of it stays there
    const again = [...$("jobs").querySelectorAll("button")].find((b) => b.getAttribute("aria-label") === focused);
    if (again) again.focus();
  }
  $("history").hidden = !$("jobs").children.length;
  $("more").hidden = page.next === null;
  $("more").onclick = () => list(page.next);
  if (!before && page.jobs.some(active)) listTimer = setTimeout(list, POLL_MS);
}

// ---- where we are

function goHome(message = "") {
  if (location.hash) history.pushState(null, "", location.pathname);
  route();
  problem($("start-problem"), message);
}

function route() {
  if (upload) return;
  unfollow();
  try { shown = decodeURIComponent(location.hash.slice(1)) || null; } catch { shown = null; }
  document.querySelector(".back").hidden = false;
  announced = "";
  if (shown) {
    clearTimeout(listTimer);
    blankJob("…");
    $("job-name").focus();
    poll(shown);
  } else {
    document.title = "avdetect";
    section("start");
    problem($("start-problem"), "");
    list();
  }
}

$("file").addEventListener("change", () => { take([...$("file").files]); $("file").value = ""; });
$("drop").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (name === "drop" || !event.relatedTarget) $("drop").classList.remove("over");
  });
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (!$("start").hidden) take([...event.dataTransfer.files]);
});
$("cancel").addEventListener("click", async () => {
  if (upload) { upload.abort(); return; }
  const id = shown;
  $("cancel").disabled = true;
  await call(`/v1/jobs/${encodeURIComponent(id)}/cancel`, "POST").catch(() => {});  // it may have ended; seen below
  $("cancel").disabled = false;
  if (shown === id) poll(id);
});
$("delete").addEventListener("click", async () => {
  const id = shown;
  if (!confirm(DELETING)) return;
  let problems = "";
  await call(`/v1/jobs/${encodeURIComponent(id)}`, "DELETE").catch((error) => { problems = error.message; });
  if (shown === id) goHome(problems);
});
addEventListener("hashchange", route);
addEventListener("popstate", route);
addEventListener("beforeunload", (event) => { if (upload) event.preventDefault(); });

call("/v1/server").then((about) => {
  server = about;
  $("limits").textContent = `Up to ${size(about.max_upload_bytes)}. Reports are deleted after ${hours(about.keep_hours)}; until then whoever may use this server sees them.`;
}).catch(() => {});
route();
