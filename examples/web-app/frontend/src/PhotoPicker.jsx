import { useState } from "react";

/** A file input that looks like a drop zone, and is one. */
export function PhotoPicker({ photo, onPick }) {
  const [isOver, setIsOver] = useState(false);

  function pick(files) {
    if (files.length) onPick(files[0]);
  }

  function drop(event) {
    event.preventDefault();
    setIsOver(false);
    pick(event.dataTransfer.files);
  }

  function dragOver(event) {
    event.preventDefault();
    setIsOver(true);
  }

  function change(event) {
    pick(event.target.files);
    event.target.value = ""; // so that the same photo can be picked again
  }

  return (
    <label
      className={isOver ? "picker over" : "picker"}
      onDrop={drop}
      onDragOver={dragOver}
      onDragLeave={() => setIsOver(false)}
    >
      <input type="file" accept="image/*" onChange={change} />
      {photo && <img key={photo.url} src={photo.url} alt={photo.name} onError={(event) => (event.target.hidden = true)} />}
      <span>{photo ? "Choose another photo" : "Choose a photo, or drop one here"}</span>
    </label>
  );
}
